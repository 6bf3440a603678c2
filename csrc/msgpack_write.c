#include "msgpack.h"

#include <string.h>

static uint8_t *room_for(struct msgpack_writer *writer, size_t length)
{
    if (writer->failed || memory_reserve(writer->memory, &writer->bytes, 1, &writer->capacity,
                                         writer->length + length)) {
        writer->failed = true;
        return NULL;
    }
    uint8_t *at = writer->bytes + writer->length;
    writer->length += length;
    return at;
}

static void write_head(struct msgpack_writer *writer, uint8_t first, uint64_t number,
                       unsigned width)
{
    uint8_t *at = room_for(writer, 1 + (size_t)width);
    if (at == NULL)
        return;
    at[0] = first;
    for (unsigned byte = 0; byte < width; byte++)
        at[1 + byte] = (uint8_t)(number >> (8 * (width - 1 - byte)));
}

void msgpack_write_raw(struct msgpack_writer *writer, const void *bytes, size_t length)
{
    uint8_t *at = room_for(writer, length);
    if (at != NULL && length > 0)
        memcpy(at, bytes, length);
}

void msgpack_write_nil(struct msgpack_writer *writer)
{
    write_head(writer, 0xc0, 0, 0);
}

void msgpack_write_uint(struct msgpack_writer *writer, uint64_t value)
{
    if (value < 0x80)
        write_head(writer, (uint8_t)value, 0, 0);
    else if (value <= UINT32_MAX)
        write_head(writer, 0xce, value, 4);
    else
        write_head(writer, 0xcf, value, 8);
}

void msgpack_write_double(struct msgpack_writer *writer, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    write_head(writer, 0xcb, bits, 8);
}

void msgpack_write_str(struct msgpack_writer *writer, const void *text, size_t length)
{
    if (length < 32)
        write_head(writer, (uint8_t)(0xa0 | length), 0, 0);
    else
        write_head(writer, 0xdb, length, 4);
    msgpack_write_raw(writer, text, length);
}

void msgpack_write_array(struct msgpack_writer *writer, uint32_t elements)
{
    write_head(writer, 0xdd, elements, 4);
}

void msgpack_write_map(struct msgpack_writer *writer, uint32_t pairs)
{
    write_head(writer, 0xdf, pairs, 4);
}

size_t msgpack_open_array(struct msgpack_writer *writer)
{
    msgpack_write_array(writer, 0);
    return writer->length;
}

void msgpack_close_array(struct msgpack_writer *writer, size_t opened, uint32_t elements)
{
    if (writer->failed)
        return;
    for (unsigned byte = 0; byte < 4; byte++)
        writer->bytes[opened - 1 - byte] = (uint8_t)(elements >> (8 * byte));
}

void msgpack_writer_free(struct msgpack_writer *writer)
{
    memory_free(writer->memory, writer->bytes, writer->capacity);
    *writer = (struct msgpack_writer){.memory = writer->memory};
}
