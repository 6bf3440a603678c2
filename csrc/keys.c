#define _GNU_SOURCE /* memmem, memrchr */
#include "keys.h"

#include <string.h>

void keys_init(struct keys *keys)
{
    *keys = (struct keys){.retired = NONE, .held = NONE};
}

struct key *keys_find(const struct keys *keys, uint32_t hash, const void *text, size_t length)
{
    uint32_t at = hash, id;
    while ((id = index_next(&keys->index, hash, &at)) != NONE) {
        struct key *key = keys->entries[id];
        if (key->length == length && memcmp(key->text, text, length) == 0)
            return key;
    }
    return NULL;
}

struct key *keys_add(struct keys *keys, struct memory *memory, uint32_t hash, const void *text,
                     size_t length)
{
    size_t wanted = (size_t)keys->count + 1;
    if (memory_reserve(memory, &keys->entries, sizeof *keys->entries, &keys->capacity, wanted) ||
        memory_reserve(memory, &keys->vacant, sizeof *keys->vacant, &keys->vacant_capacity,
                       wanted) ||
        index_reserve(&keys->index, memory))
        return NULL;
    struct key *key = memory_get(memory, sizeof *key + length);
    if (key == NULL)
        return NULL;
    key->id = keys->vacant_count ? keys->vacant[--keys->vacant_count] : keys->count++;
    key->hash = hash;
    key->first_record = key->first_series = key->table = NONE;
    key->length = (uint16_t)length;
    memcpy(key->text, text, length);
    keys->entries[key->id] = key;
    index_put(&keys->index, hash, key->id);
    keys->live++;
    return key;
}

void keys_remove(struct keys *keys, struct key *key)
{
    index_remove(&keys->index, key->hash, key->id);
    key->gone = true;
    key->next = keys->retired;
    keys->retired = key->id;
    keys->live--;
}

static void release(struct keys *keys, struct memory *memory, uint32_t id)
{
    struct key *key = keys->entries[id];
    memory_free(memory, key, sizeof *key + key->length);
    keys->entries[id] = NULL;
}

static void recycle(struct keys *keys, struct memory *memory, uint32_t *list)
{
    while (*list != NONE) {
        uint32_t id = *list;
        *list = keys->entries[id]->next;
        release(keys, memory, id);
        keys->vacant[keys->vacant_count++] = id;
    }
}

void keys_recycle(struct keys *keys, struct memory *memory)
{
    recycle(keys, memory, &keys->retired);
    recycle(keys, memory, &keys->held);
}

void keys_hold(struct keys *keys, struct memory *memory)
{
    recycle(keys, memory, &keys->held);
    keys->held = keys->retired;
    keys->retired = NONE;
}

void keys_free(struct keys *keys, struct memory *memory)
{
    for (uint32_t id = 0; id < keys->count; id++)
        if (keys->entries[id] != NULL)
            release(keys, memory, id);
    memory_free(memory, keys->entries, keys->capacity * sizeof *keys->entries);
    memory_free(memory, keys->vacant, keys->vacant_capacity * sizeof *keys->vacant);
    index_free(&keys->index, memory);
    keys_init(keys);
}

bool keys_match(const char *pattern, size_t pattern_length, const char *text, size_t length)
{
    const char *end = pattern + pattern_length, *rest = text + length;
    const char *star = memchr(pattern, '*', pattern_length);
    if (star == NULL)
        return pattern_length == length && memcmp(pattern, text, length) == 0;
    size_t head = (size_t)(star - pattern);
    const char *last = memrchr(pattern, '*', pattern_length);
    size_t tail = (size_t)(end - last - 1);
    if (length < head + tail || memcmp(pattern, text, head) != 0 ||
        memcmp(last + 1, rest - tail, tail) != 0)
        return false;
    text += head;
    rest -= tail;
    while (star < last) { /* what stands between two stars, at the first place it fits */
        const char *part = star + 1;
        star = memchr(part, '*', (size_t)(end - part));
        size_t size = (size_t)(star - part);
        const char *found = memmem(text, (size_t)(rest - text), part, size);
        if (found == NULL)
            return false;
        text = found + size;
    }
    return true;
}
