/* mutate.h: a main for what is a libFuzzer target otherwise: it lives files, and then mutations of
 * them. The includer has defined `live`. */
#ifndef COLLECTORD_TESTS_MUTATE_H
#define COLLECTORD_TESTS_MUTATE_H

#include "harness.h"

enum { INPUT_BYTES = 1 << 16 };

static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(((random_state >> 32) * limit) >> 32);
}

/* One small change: a byte flipped, set, taken out or put in, or a run copied elsewhere. */
static size_t mutate(uint8_t *bytes, size_t length)
{
    static const uint8_t telling[] = {0x00, 0x7f, 0x80, 0x90, 0xa0, 0xc0, 0xc1, 0xc7, 0xcb, 0xcf,
                                      0xd3, 0xd9, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xff};
    size_t at = random_below((uint32_t)length), to = random_below((uint32_t)length);
    size_t run = 1 + random_below(32);
    switch (random_below(6)) {
    case 0:
        bytes[at] ^= (uint8_t)(1u << random_below(8));
        return length;
    case 1:
        bytes[at] = telling[random_below(sizeof telling)];
        return length;
    case 2:
        bytes[at] = (uint8_t)(bytes[at] + 1 - 2 * random_below(2));
        return length;
    case 3:
        run = run < length - at ? run : length - at;
        memmove(bytes + at, bytes + at + run, length - at - run);
        return length - run;
    case 4:
        if (length + run > INPUT_BYTES)
            return length;
        memmove(bytes + at + run, bytes + at, length - at);
        return length + run;
    default:
        run = run < length - at ? run : length - at;
        run = run < length - to ? run : length - to;
        memmove(bytes + to, bytes + at, run);
        return length;
    }
}

static size_t load(const char *path, uint8_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    size_t length = fread(bytes, 1, INPUT_BYTES, file);
    fclose(file);
    return length;
}

static void live_files(int count, char **paths, unsigned long mutations)
{
    static uint8_t bytes[INPUT_BYTES];
    for (int at = 0; at < count; at++) {
        snprintf(check_context, sizeof check_context, "(file %.100s)", paths[at]);
        live(bytes, load(paths[at], bytes));
    }
    for (unsigned long done = 0; done < mutations; done++) {
        uint64_t seed = random_state;
        size_t length = load(paths[random_below((uint32_t)count)], bytes);
        snprintf(check_context, sizeof check_context, "(-n 1 -s %llu)", (unsigned long long)seed);
        for (uint32_t left = 1 + random_below(8); left > 0 && length > 0; left--)
            length = mutate(bytes, length);
        live(bytes, length);
    }
    printf("ok %d files, %lu mutations\n", count, mutations);
}

/* The options -n MUTATIONS and -s SEED; returns where the files begin. */
static int read_options(int count, char **arguments, unsigned long *mutations)
{
    int first = 1;
    for (; first + 1 < count && arguments[first][0] == '-'; first += 2) {
        unsigned long number = strtoul(arguments[first + 1], NULL, 10);
        if (arguments[first][1] == 'n')
            *mutations = number;
        else
            random_state = number;
    }
    return first;
}

#endif
