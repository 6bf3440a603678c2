/* msgpack.h: a bounded reader and a writer of msgpack (the specification at msgpack.org).
 *
 * The reader walks bytes that anyone may have sent. It never reads past `end`, never recurses and
 * never allocates; a count in the input is believed only as far as there are bytes to back it.
 * The writer appends to a buffer that grows, each value in its shortest form; a failed allocation is
 * remembered, and asked for once. Who writes much asks for room himself, and puts values there.
 */
#ifndef COLLECTORD_MSGPACK_H
#define COLLECTORD_MSGPACK_H

#include "memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { MSGPACK_NESTING = 32 }; /* maps and arrays inside one another */

enum msgpack_error {
    MSGPACK_OK,
    MSGPACK_SHORT,   /* the bytes end inside a value */
    MSGPACK_INVALID, /* 0xc1, which means nothing */
    MSGPACK_DEEP,    /* nested deeper than MSGPACK_NESTING */
};

enum msgpack_type {
    MSGPACK_NIL,
    MSGPACK_BOOL,
    MSGPACK_UINT,
    MSGPACK_INT, /* below zero */
    MSGPACK_FLOAT,
    MSGPACK_STR,
    MSGPACK_BIN,
    MSGPACK_EXT,
    MSGPACK_ARRAY,
    MSGPACK_MAP,
};

struct msgpack_reader {
    const uint8_t *at;
    const uint8_t *end;
};

/* The start of a value: its type, and what the type calls for. */
struct msgpack_head {
    enum msgpack_type type;
    uint32_t length; /* str, bin, ext: bytes that follow; array, map: elements, pairs */
    union {
        uint64_t natural; /* uint, bool */
        int64_t integer;
        double real;
    };
};

/* Read a value's head and stop behind it: before the bytes of a str, the elements of an array. */
enum msgpack_error msgpack_read(struct msgpack_reader *reader, struct msgpack_head *head);

/* By its first byte: the bytes of a number, a bool, nil or a short str, whole; 0 for the others. */
extern const uint8_t msgpack_simple_size[256];

/* Pass over one whole value that stands inside `depth` maps and arrays. */
enum msgpack_error msgpack_skip(struct msgpack_reader *reader, int depth);

/* A str: its bytes and their number; false leaves the reader where it was. */
static inline bool msgpack_read_str(struct msgpack_reader *reader, const uint8_t **text,
                                          uint32_t *length)
{
    const uint8_t *at = reader->at;
    size_t left = (size_t)(reader->end - at), size, head;
    if (left >= 1 && (at[0] & 0xe0) == 0xa0) {
        size = at[0] & 0x1f;
        head = 1;
    } else if (left >= 2 && at[0] == 0xd9) {
        size = at[1];
        head = 2;
    } else if (left >= 3 && at[0] == 0xda) {
        size = (size_t)at[1] << 8 | at[2];
        head = 3;
    } else if (left >= 5 && at[0] == 0xdb) {
        size = (size_t)at[1] << 24 | (size_t)at[2] << 16 | (size_t)at[3] << 8 | at[4];
        head = 5;
    } else {
        return false;
    }
    if (left - head < size)
        return false;
    *text = at + head;
    *length = (uint32_t)size;
    reader->at = at + head + size;
    return true;
}

/* The number in a whole value of `length` bytes: false where it is none. `*real` tells floats. */
bool msgpack_number(const uint8_t *value, size_t length, double *number, bool *real);

/* Whether bytes are UTF-8 (RFC 3629: no surrogates, nothing overlong, at most U+10FFFF). */
bool msgpack_is_utf8(const uint8_t *text, size_t length);

struct msgpack_writer {
    struct memory *memory;
    uint8_t *bytes;
    size_t length;
    size_t capacity;
    bool failed; /* an allocation failed: the bytes are not whole */
};

void msgpack_write_nil(struct msgpack_writer *writer);
void msgpack_write_uint(struct msgpack_writer *writer, uint64_t value);
void msgpack_write_double(struct msgpack_writer *writer, double value);
void msgpack_write_str(struct msgpack_writer *writer, const void *text, size_t length);
void msgpack_write_array(struct msgpack_writer *writer, uint32_t elements);
void msgpack_write_map(struct msgpack_writer *writer, uint32_t pairs);

/* Bytes that are msgpack already. */
void msgpack_write_raw(struct msgpack_writer *writer, const void *bytes, size_t length);

/* An array whose number of elements is told when it is known. */
size_t msgpack_open_array(struct msgpack_writer *writer);
void msgpack_close_array(struct msgpack_writer *writer, size_t opened, uint32_t elements);
void msgpack_writer_free(struct msgpack_writer *writer);

/* ---- putting: values into room that was made ------------------------------------------------------ */

enum {
    MSGPACK_HEAD_ROOM = 5,  /* that the head of a str, a bin or an array may need */
    MSGPACK_NUMBER_ROOM = 9 /* that a number may need */
};

uint8_t *msgpack_grow(struct msgpack_writer *writer, size_t most);

/* Where to put up to `most` bytes, or NULL; msgpack_fill tells how far they went. */
static inline uint8_t *msgpack_room(struct msgpack_writer *writer, size_t most)
{
    return writer->capacity - writer->length >= most ? writer->bytes + writer->length
                                                     : msgpack_grow(writer, most);
}

static inline void msgpack_fill(struct msgpack_writer *writer, const uint8_t *end)
{
    writer->length = (size_t)(end - writer->bytes);
}

static inline uint8_t *msgpack_put_wide(uint8_t *at, uint8_t first, uint64_t number,
                                        unsigned width)
{
    at[0] = first;
    for (unsigned byte = 0; byte < width; byte++)
        at[1 + byte] = (uint8_t)(number >> (8 * (width - 1 - byte)));
    return at + 1 + width;
}

static inline uint8_t *msgpack_put_uint(uint8_t *at, uint64_t value)
{
    if (value < 0x80) {
        *at = (uint8_t)value;
        return at + 1;
    }
    if (value <= UINT8_MAX)
        return msgpack_put_wide(at, 0xcc, value, 1);
    if (value <= UINT16_MAX)
        return msgpack_put_wide(at, 0xcd, value, 2);
    return value <= UINT32_MAX ? msgpack_put_wide(at, 0xce, value, 4)
                               : msgpack_put_wide(at, 0xcf, value, 8);
}

static inline uint8_t *msgpack_put_int(uint8_t *at, int64_t value)
{
    if (value >= 0)
        return msgpack_put_uint(at, (uint64_t)value);
    if (value >= -32) {
        *at = (uint8_t)value;
        return at + 1;
    }
    if (value >= INT8_MIN)
        return msgpack_put_wide(at, 0xd0, (uint64_t)value, 1);
    if (value >= INT16_MIN)
        return msgpack_put_wide(at, 0xd1, (uint64_t)value, 2);
    return value >= INT32_MIN ? msgpack_put_wide(at, 0xd2, (uint64_t)value, 4)
                              : msgpack_put_wide(at, 0xd3, (uint64_t)value, 8);
}

static inline uint8_t *msgpack_put_double(uint8_t *at, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return msgpack_put_wide(at, 0xcb, bits, 8);
}

/* As an integer where it is one that comes back as the same double, which is shorter. */
static inline uint8_t *msgpack_put_number(uint8_t *at, double value)
{
    const double exact = 9007199254740992; /* 2^53 */
    if (value > -exact && value < exact) {
        int64_t whole = (int64_t)value;
        double back = (double)whole;
        if (memcmp(&back, &value, sizeof back) == 0) /* not so for -0.0 */
            return msgpack_put_int(at, whole);
    }
    return msgpack_put_double(at, value);
}

static inline uint8_t *msgpack_put_array(uint8_t *at, uint32_t elements)
{
    if (elements < 16) {
        *at = (uint8_t)(0x90 | elements);
        return at + 1;
    }
    return elements <= UINT16_MAX ? msgpack_put_wide(at, 0xdc, elements, 2)
                                  : msgpack_put_wide(at, 0xdd, elements, 4);
}

/* The head of a str: its bytes must follow. */
static inline uint8_t *msgpack_put_str(uint8_t *at, uint32_t length)
{
    if (length < 32) {
        *at = (uint8_t)(0xa0 | length);
        return at + 1;
    }
    if (length <= UINT8_MAX)
        return msgpack_put_wide(at, 0xd9, length, 1);
    return length <= UINT16_MAX ? msgpack_put_wide(at, 0xda, length, 2)
                                : msgpack_put_wide(at, 0xdb, length, 4);
}

/* The head of a bin: its bytes must follow. */
static inline uint8_t *msgpack_put_bin(uint8_t *at, uint32_t length)
{
    if (length <= UINT8_MAX)
        return msgpack_put_wide(at, 0xc4, length, 1);
    return length <= UINT16_MAX ? msgpack_put_wide(at, 0xc5, length, 2)
                                : msgpack_put_wide(at, 0xc6, length, 4);
}

#endif
