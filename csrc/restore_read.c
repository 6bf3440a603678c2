/* restore_read.c: reading what a snapshot holds, value by value, each as it has to be. */
#include "snapshot.h"

#include <math.h>

void restore_open(struct restoring *restoring, const uint8_t *bytes, size_t length,
                  struct batch_fault *fault)
{
    *fault = (struct batch_fault){"", 0};
    *restoring = (struct restoring){{bytes, bytes + length}, bytes, fault, RESTORE_OK};
}

bool restore_broken(struct restoring *restoring, const char *message)
{
    restoring->status = RESTORE_BROKEN;
    restoring->fault->message = message;
    restoring->fault->offset = (size_t)(restoring->reader.at - restoring->start);
    return false;
}

bool restore_no_memory(struct restoring *restoring)
{
    restoring->status = RESTORE_NO_MEMORY;
    restoring->fault->message = "the collector is out of memory";
    return false;
}

static bool read_head(struct restoring *restoring, struct msgpack_head *head)
{
    enum msgpack_error error = msgpack_read(&restoring->reader, head);
    if (error == MSGPACK_SHORT)
        return restore_broken(restoring, "the bytes end inside a value");
    return error == MSGPACK_OK || restore_broken(restoring, "0xc1 is no msgpack");
}

bool restore_array(struct restoring *restoring, uint32_t *elements)
{
    struct msgpack_head head;
    if (!read_head(restoring, &head))
        return false;
    size_t left = (size_t)(restoring->reader.end - restoring->reader.at);
    *elements = head.length;
    if (head.type != MSGPACK_ARRAY)
        return restore_broken(restoring, "an array is missing");
    return head.length <= left || restore_broken(restoring, "the bytes end inside an array");
}

bool restore_array_of(struct restoring *restoring, uint32_t elements)
{
    uint32_t found;
    return restore_array(restoring, &found) &&
           (found == elements || restore_broken(restoring, "an array is of another length"));
}

bool restore_natural(struct restoring *restoring, uint64_t most, uint64_t *number)
{
    struct msgpack_head head;
    if (!read_head(restoring, &head))
        return false;
    if (head.type != MSGPACK_UINT)
        return restore_broken(restoring, "an unsigned integer is missing");
    *number = head.natural;
    return head.natural <= most || restore_broken(restoring, "a number is too great");
}

bool restore_integer(struct restoring *restoring, int64_t *number)
{
    struct msgpack_head head;
    if (!read_head(restoring, &head))
        return false;
    bool negative = head.type == MSGPACK_INT;
    if (!negative && (head.type != MSGPACK_UINT || head.natural > INT64_MAX))
        return restore_broken(restoring, "an integer is missing");
    *number = negative ? head.integer : (int64_t)head.natural;
    return true;
}

bool restore_number(struct restoring *restoring, double *number)
{
    struct msgpack_head head;
    if (!read_head(restoring, &head))
        return false;
    if (head.type == MSGPACK_UINT)
        *number = (double)head.natural;
    else if (head.type == MSGPACK_INT)
        *number = (double)head.integer;
    else if (head.type == MSGPACK_FLOAT)
        *number = head.real;
    else
        return restore_broken(restoring, "a number is missing");
    return true;
}

bool restore_text(struct restoring *restoring, struct text *text)
{
    const uint8_t *bytes;
    uint32_t length;
    if (!msgpack_read_str(&restoring->reader, &bytes, &length))
        return restore_broken(restoring, "a text is missing");
    *text = (struct text){(const char *)bytes, length};
    return true;
}

bool restore_optional(struct restoring *restoring, struct text *text)
{
    struct msgpack_reader *reader = &restoring->reader;
    *text = (struct text){NULL, 0};
    if (reader->at == reader->end || *reader->at != 0xc0)
        return restore_text(restoring, text);
    reader->at++;
    return true;
}

bool restore_bin(struct restoring *restoring, uint32_t length, const uint8_t **bytes)
{
    struct msgpack_head head;
    if (!read_head(restoring, &head))
        return false;
    if (head.type != MSGPACK_BIN || head.length != length)
        return restore_broken(restoring, "bytes are missing, or of another number");
    *bytes = restoring->reader.at;
    restoring->reader.at += length;
    return true;
}

bool restore_value(struct restoring *restoring, const uint8_t **value, uint32_t *length)
{
    enum { IN_A_BATCH = 4 }; /* a value stands inside so many maps and arrays there */
    struct msgpack_reader *reader = &restoring->reader;
    *value = reader->at;
    enum msgpack_error error = msgpack_skip(reader, IN_A_BATCH);
    *length = (uint32_t)(reader->at - *value);
    return (error == MSGPACK_OK && **value != 0xc0) ||
           restore_broken(restoring, "a value is missing, or no value");
}

bool restore_close(struct restoring *restoring)
{
    return restoring->reader.at == restoring->reader.end ||
           restore_broken(restoring, "there are bytes behind the end");
}
