#include "msgpack.h"

#include <string.h>

/* How a value begins, by its first byte: type, bytes of the number or length behind the first
 * byte, and the payload that the first byte itself tells. */
struct form {
    uint8_t type;
    uint8_t width;
    uint8_t is_signed;
};

static const struct form FORMS[] = {
    /* 0xc0 */ {MSGPACK_NIL, 0, 0}, {0, 0xff, 0},
    /* 0xc2 */ {MSGPACK_BOOL, 0, 0}, {MSGPACK_BOOL, 0, 0},
    /* 0xc4 */ {MSGPACK_BIN, 1, 0}, {MSGPACK_BIN, 2, 0}, {MSGPACK_BIN, 4, 0},
    /* 0xc7 */ {MSGPACK_EXT, 1, 0}, {MSGPACK_EXT, 2, 0}, {MSGPACK_EXT, 4, 0},
    /* 0xca */ {MSGPACK_FLOAT, 4, 0}, {MSGPACK_FLOAT, 8, 0},
    /* 0xcc */ {MSGPACK_UINT, 1, 0}, {MSGPACK_UINT, 2, 0}, {MSGPACK_UINT, 4, 0},
    /* 0xcf */ {MSGPACK_UINT, 8, 0},
    /* 0xd0 */ {MSGPACK_INT, 1, 1}, {MSGPACK_INT, 2, 1}, {MSGPACK_INT, 4, 1}, {MSGPACK_INT, 8, 1},
    /* 0xd4: fixext, told below */ {MSGPACK_EXT, 0, 0}, {MSGPACK_EXT, 0, 0}, {MSGPACK_EXT, 0, 0},
    /* 0xd7 */ {MSGPACK_EXT, 0, 0}, {MSGPACK_EXT, 0, 0},
    /* 0xd9 */ {MSGPACK_STR, 1, 0}, {MSGPACK_STR, 2, 0}, {MSGPACK_STR, 4, 0},
    /* 0xdc */ {MSGPACK_ARRAY, 2, 0}, {MSGPACK_ARRAY, 4, 0},
    /* 0xde */ {MSGPACK_MAP, 2, 0}, {MSGPACK_MAP, 4, 0},
};

const uint8_t msgpack_simple_size[256] = {
    /* 0x00 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0x10 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0x20 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0x30 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0x40 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0x50 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0x60 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0x70 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0x80 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 0x90 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 0xa0 */ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
    /* 0xb0 */ 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32,
    /* 0xc0 */ 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 5, 9, 2, 3, 5, 9,
    /* 0xd0 */ 2, 3, 5, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 0xe0 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 0xf0 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
};

static uint64_t big_endian(const uint8_t *at, unsigned width)
{
    uint64_t number = 0;
    for (unsigned byte = 0; byte < width; byte++)
        number = number << 8 | at[byte];
    return number;
}

static double real_of(uint64_t bits, unsigned width)
{
    if (width == 4) {
        uint32_t half = (uint32_t)bits;
        float single;
        memcpy(&single, &half, sizeof single);
        return (double)single;
    }
    double real;
    memcpy(&real, &bits, sizeof real);
    return real;
}

static int64_t signed_of(uint64_t bits, unsigned width)
{
    uint64_t sign = (uint64_t)1 << (width * 8 - 1);
    uint64_t extended = (bits ^ sign) - sign; /* modulo 2^64 */
    int64_t integer;
    memcpy(&integer, &extended, sizeof integer);
    return integer;
}

static void set_number(struct msgpack_head *head, struct form form, uint64_t bits)
{
    switch (head->type) {
    case MSGPACK_FLOAT:
        head->real = real_of(bits, form.width);
        break;
    case MSGPACK_INT:
        head->integer = signed_of(bits, form.width);
        if (head->integer >= 0) {
            head->type = MSGPACK_UINT;
            head->natural = (uint64_t)head->integer;
        }
        break;
    case MSGPACK_UINT:
        head->natural = bits;
        break;
    default:
        head->length = (uint32_t)bits;
    }
}

/* The one-byte forms: small numbers, and small lengths of str, array, map. */
static bool read_fixed(struct msgpack_head *head, uint8_t first)
{
    head->length = 0;
    if (first < 0x80) {
        head->type = MSGPACK_UINT;
        head->natural = first;
    } else if (first < 0x90) {
        head->type = MSGPACK_MAP;
        head->length = first & 0x0f;
    } else if (first < 0xa0) {
        head->type = MSGPACK_ARRAY;
        head->length = first & 0x0f;
    } else if (first < 0xc0) {
        head->type = MSGPACK_STR;
        head->length = first & 0x1f;
    } else if (first >= 0xe0) {
        head->type = MSGPACK_INT;
        head->integer = (int64_t)first - 0x100;
    } else {
        return false;
    }
    return true;
}

enum msgpack_error msgpack_read(struct msgpack_reader *reader, struct msgpack_head *head)
{
    size_t left = (size_t)(reader->end - reader->at);
    if (left == 0)
        return MSGPACK_SHORT;
    uint8_t first = *reader->at;
    if (read_fixed(head, first)) {
        reader->at++;
    } else {
        struct form form = FORMS[first - 0xc0];
        if (form.width == 0xff)
            return MSGPACK_INVALID;
        if (left - 1 < form.width)
            return MSGPACK_SHORT;
        head->type = form.type;
        set_number(head, form, big_endian(reader->at + 1, form.width));
        if (head->type == MSGPACK_BOOL)
            head->natural = first & 1;
        if (first >= 0xd4 && first <= 0xd8)
            head->length = 1u << (first - 0xd4);
        reader->at += 1 + form.width;
    }
    if (head->type == MSGPACK_EXT) { /* its own type is one byte more, which is nobody's here */
        if (reader->at == reader->end)
            return MSGPACK_SHORT;
        reader->at++;
    }
    bool bytes = head->type == MSGPACK_STR || head->type == MSGPACK_BIN ||
                 head->type == MSGPACK_EXT;
    if (bytes && head->length > (size_t)(reader->end - reader->at))
        return MSGPACK_SHORT;
    return MSGPACK_OK;
}

enum msgpack_error msgpack_skip(struct msgpack_reader *reader, int depth)
{
    uint64_t waiting[MSGPACK_NESTING + 1]; /* values still to come at each depth */
    int bottom = depth;
    waiting[depth] = 1;
    for (;;) {
        struct msgpack_head head;
        enum msgpack_error error = msgpack_read(reader, &head);
        if (error)
            return error;
        waiting[depth]--;
        if (head.type == MSGPACK_ARRAY || head.type == MSGPACK_MAP) {
            if (depth == MSGPACK_NESTING)
                return MSGPACK_DEEP;
            waiting[++depth] = head.type == MSGPACK_MAP ? (uint64_t)head.length * 2 : head.length;
        } else if (head.type == MSGPACK_STR || head.type == MSGPACK_BIN ||
                   head.type == MSGPACK_EXT) {
            reader->at += head.length;
        }
        while (waiting[depth] == 0) {
            if (depth == bottom)
                return MSGPACK_OK;
            depth--;
        }
    }
}

bool msgpack_number(const uint8_t *value, size_t length, double *number, bool *real)
{
    struct msgpack_reader reader = {value, value + length};
    struct msgpack_head head = {0};
    *real = false;
    if (*value < 0x80) {
        *number = *value;
        return true;
    }
    if (*value < 0xca || (*value > 0xd3 && *value < 0xe0))
        return false;
    if (msgpack_read(&reader, &head))
        return false;
    if (head.type == MSGPACK_UINT)
        *number = (double)head.natural;
    else if (head.type == MSGPACK_INT)
        *number = (double)head.integer;
    else
        *number = head.real;
    *real = head.type == MSGPACK_FLOAT;
    return true;
}

static bool is_tail(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* Bytes of the character at `at`, 0 where there is none. */
static size_t character(const uint8_t *at, size_t left)
{
    uint8_t first = at[0];
    if (first < 0x80)
        return 1;
    if (first < 0xc2 || first > 0xf4 || left < 2 || !is_tail(at[1]))
        return 0;
    if (first < 0xe0)
        return 2;
    if (left < 3 || !is_tail(at[2]))
        return 0;
    if (first < 0xf0) {
        bool overlong = first == 0xe0 && at[1] < 0xa0;
        bool surrogate = first == 0xed && at[1] > 0x9f;
        return overlong || surrogate ? 0 : 3;
    }
    bool overlong = first == 0xf0 && at[1] < 0x90;
    bool beyond = first == 0xf4 && at[1] > 0x8f;
    return overlong || beyond || left < 4 || !is_tail(at[3]) ? 0 : 4;
}

bool msgpack_is_utf8(const uint8_t *text, size_t length)
{
    while (length > 0) {
        uint64_t word;
        if (length >= sizeof word) {
            memcpy(&word, text, sizeof word);
            if ((word & 0x8080808080808080u) == 0) {
                text += sizeof word;
                length -= sizeof word;
                continue;
            }
        }
        size_t size = character(text, length);
        if (size == 0)
            return false;
        text += size;
        length -= size;
    }
    return true;
}
