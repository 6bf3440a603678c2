#include "msgpack.h"

uint8_t *msgpack_grow(struct msgpack_writer *writer, size_t most)
{
    if (writer->failed || memory_reserve(writer->memory, &writer->bytes, 1, &writer->capacity,
                                         writer->length + most)) {
        writer->failed = true;
        return NULL;
    }
    return writer->bytes + writer->length;
}

void msgpack_write_raw(struct msgpack_writer *writer, const void *bytes, size_t length)
{
    uint8_t *at = length > 0 && !writer->failed ? msgpack_room(writer, length) : NULL;
    if (at == NULL)
        return;
    memcpy(at, bytes, length);
    msgpack_fill(writer, at + length);
}

/* Room for a head or a number; NULL from the first failure on. */
static uint8_t *room_for_one(struct msgpack_writer *writer)
{
    return writer->failed ? NULL : msgpack_room(writer, MSGPACK_NUMBER_ROOM);
}

void msgpack_write_nil(struct msgpack_writer *writer)
{
    msgpack_write_raw(writer, "\xc0", 1);
}

void msgpack_write_uint(struct msgpack_writer *writer, uint64_t value)
{
    uint8_t *at = room_for_one(writer);
    if (at != NULL)
        msgpack_fill(writer, msgpack_put_uint(at, value));
}

void msgpack_write_double(struct msgpack_writer *writer, double value)
{
    uint8_t *at = room_for_one(writer);
    if (at != NULL)
        msgpack_fill(writer, msgpack_put_double(at, value));
}

void msgpack_write_str(struct msgpack_writer *writer, const void *text, size_t length)
{
    uint8_t *at = room_for_one(writer);
    if (at != NULL)
        msgpack_fill(writer, msgpack_put_str(at, (uint32_t)length));
    msgpack_write_raw(writer, text, length);
}

void msgpack_write_array(struct msgpack_writer *writer, uint32_t elements)
{
    uint8_t *at = room_for_one(writer);
    if (at != NULL)
        msgpack_fill(writer, msgpack_put_array(at, elements));
}

void msgpack_write_map(struct msgpack_writer *writer, uint32_t pairs)
{
    uint8_t *at = room_for_one(writer);
    if (at == NULL)
        return;
    if (pairs < 16)
        *at++ = (uint8_t)(0x80 | pairs);
    else
        at = pairs <= UINT16_MAX ? msgpack_put_wide(at, 0xde, pairs, 2)
                                 : msgpack_put_wide(at, 0xdf, pairs, 4);
    msgpack_fill(writer, at);
}

size_t msgpack_open_array(struct msgpack_writer *writer)
{
    uint8_t *at = room_for_one(writer);
    if (at != NULL)
        msgpack_fill(writer, msgpack_put_wide(at, 0xdd, 0, 4));
    return writer->length;
}

void msgpack_close_array(struct msgpack_writer *writer, size_t opened, uint32_t elements)
{
    if (!writer->failed)
        (void)msgpack_put_wide(writer->bytes + opened - 5, 0xdd, elements, 4);
}

void msgpack_writer_free(struct msgpack_writer *writer)
{
    memory_free(writer->memory, writer->bytes, writer->capacity);
    *writer = (struct msgpack_writer){.memory = writer->memory};
}
