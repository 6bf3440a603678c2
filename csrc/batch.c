#include "batch.h"

#include <string.h>

#define WORDS(...) {__VA_ARGS__}
/* The struct that the collector adds to views itself: no source may tell what is alarming. */
#define RESERVED "UVEAlarms"

const char *const rejection_codes[REJECTIONS] = WORDS(
    "", "bad_record", "bad_key", "bad_struct", "bad_attribute", "bad_time", "bad_value", "future",
    "limit_keys", "limit_records", "limit_attributes", "limit_bytes",
    "limit_source_records", "limit_source_bytes");

const char *const rejection_messages[REJECTIONS] = WORDS(
    "",
    "a record is [key, struct, attributes] or [key, struct, attributes, time], and attributes a "
    "map or nil",
    "a key is <table>:<name> in UTF-8, at most 1024 bytes, and neither part is empty",
    "a struct is named [A-Za-z_][A-Za-z0-9_]*, at most 128 bytes, and not UVEAlarms, which is the "
    "collector's own",
    "an attribute is named [A-Za-z_][A-Za-z0-9_]*, at most 128 bytes",
    "a time is an unsigned integer: microseconds since the Unix epoch",
    "a sample is a finite number within -1e100 and 1e100",
    "a sample's time is more than 60 s in the future",
    "the collector holds as many keys as it may (LIMITS.keys)",
    "the collector holds as many records as it may (LIMITS.records)",
    "a struct of one source holds 256 attributes at most",
    "the collector holds as many bytes as it may (LIMITS.bytes)",
    "the collector holds as many records of one source as it may (LIMITS.source_records)",
    "the collector holds as many bytes of one source as it may (LIMITS.source_bytes)");

struct parser {
    struct msgpack_reader reader;
    const uint8_t *start;
    struct batch *batch;
    struct batch_fault *fault;
    uint32_t first_record, first_attribute; /* of this message */
    bool has_records;
};

static enum batch_status refuse(struct parser *parser, const uint8_t *at, const char *message)
{
    parser->fault->message = message;
    parser->fault->offset = (size_t)(at - parser->start);
    return BATCH_MALFORMED;
}

static enum batch_status refuse_bytes(struct parser *parser, enum msgpack_error error)
{
    static const char *const messages[] = {
        [MSGPACK_SHORT] = "the message is cut short: its bytes end inside a value",
        [MSGPACK_INVALID] = "0xc1 is no msgpack",
        [MSGPACK_DEEP] = "maps and arrays are nested deeper than 32",
    };
    return refuse(parser, parser->reader.at, messages[error]);
}

static enum batch_status skip(struct parser *parser, int depth)
{
    enum msgpack_error error = msgpack_skip(&parser->reader, depth);
    return error ? refuse_bytes(parser, error) : BATCH_OK;
}

/* Read the head of an array or a map; pass over a value of any other type, and leave count 0. */
static enum batch_status open(struct parser *parser, enum msgpack_type type, int depth,
                              uint32_t *count, bool *opened)
{
    const uint8_t *start = parser->reader.at;
    struct msgpack_head head;
    *opened = false;
    *count = 0;
    enum msgpack_error error = msgpack_read(&parser->reader, &head);
    if (error)
        return refuse_bytes(parser, error);
    *opened = head.type == type;
    *count = *opened ? head.length : 0;
    if (*opened)
        return BATCH_OK;
    parser->reader.at = start;
    return skip(parser, depth);
}

/* A text as it is meant everywhere here; anything else is passed over, and length left 0. */
static enum batch_status read_text(struct parser *parser, int depth, const uint8_t **text,
                                   uint32_t *length)
{
    if (msgpack_read_str(&parser->reader, text, length))
        return BATCH_OK;
    *text = parser->reader.at;
    *length = 0;
    return skip(parser, depth);
}

static enum batch_status read_natural(struct parser *parser, int depth, uint64_t *number,
                                      bool *found)
{
    const uint8_t *start = parser->reader.at;
    struct msgpack_head head;
    enum msgpack_error error = msgpack_read(&parser->reader, &head);
    if (error)
        return refuse_bytes(parser, error);
    *found = head.type == MSGPACK_UINT;
    if (*found) {
        *number = head.natural;
        return BATCH_OK;
    }
    parser->reader.at = start;
    return skip(parser, depth);
}

/* Pass over a value, the common short ones without a call. */
static inline enum batch_status skip_value(struct parser *parser, int depth)
{
    struct msgpack_reader *reader = &parser->reader;
    if (reader->at < reader->end) {
        uint8_t size = msgpack_simple_size[*reader->at];
        if (size != 0 && size <= (size_t)(reader->end - reader->at)) {
            reader->at += size;
            return BATCH_OK;
        }
    }
    return skip(parser, depth);
}

static enum batch_status read_attribute(struct parser *parser, struct record_in *record)
{
    struct batch *batch = parser->batch;
    if (batch->attribute_count == BATCH_ATTRIBUTES) {
        refuse(parser, parser->reader.at, "a batch holds 1048576 attributes at most");
        return BATCH_TOO_LARGE;
    }
    if (memory_reserve(batch->memory, &batch->attributes, sizeof *batch->attributes,
                       &batch->attribute_capacity, (size_t)batch->attribute_count + 1))
        return BATCH_NO_MEMORY;
    struct attribute_in *attribute = &batch->attributes[batch->attribute_count];
    *attribute = (struct attribute_in){0};
    uint32_t name_length;
    enum batch_status status = read_text(parser, 4, &attribute->name, &name_length);
    if (status)
        return status;
    if (name_length == 0 || name_length > NAME_BYTES)
        record->rejection = record->rejection ? record->rejection : BAD_ATTRIBUTE;
    attribute->name_length = name_length <= NAME_BYTES ? (uint8_t)name_length : 0;
    attribute->value = parser->reader.at;
    status = skip_value(parser, 4);
    if (status)
        return status;
    attribute->value_length = (uint32_t)(parser->reader.at - attribute->value);
    attribute->is_nil = *attribute->value == 0xc0;
    batch->attribute_count++;
    record->count++;
    return BATCH_OK;
}

static enum batch_status read_attributes(struct parser *parser, struct record_in *record)
{
    const struct msgpack_reader *reader = &parser->reader;
    if (reader->at < reader->end && *reader->at == 0xc0) {
        parser->reader.at++;
        record->removes = true;
        return BATCH_OK;
    }
    uint32_t count;
    bool opened;
    enum batch_status status = open(parser, MSGPACK_MAP, 3, &count, &opened);
    if (!opened && !record->rejection)
        record->rejection = BAD_RECORD;
    for (uint32_t left = count; status == BATCH_OK && left > 0; left--)
        status = read_attribute(parser, record);
    return status;
}

static enum batch_status read_names(struct parser *parser, struct record_in *record)
{
    uint32_t key_length, struct_length;
    enum batch_status status = read_text(parser, 3, &record->key, &key_length);
    if (status)
        return status;
    status = read_text(parser, 3, &record->struct_name, &struct_length);
    if (status)
        return status;
    if (key_length == 0 || key_length > KEY_BYTES)
        record->rejection = BAD_KEY;
    else if (struct_length == 0 || struct_length > NAME_BYTES ||
             (struct_length == sizeof RESERVED - 1 &&
              memcmp(record->struct_name, RESERVED, sizeof RESERVED - 1) == 0))
        record->rejection = BAD_STRUCT;
    record->key_length = record->rejection ? 0 : (uint16_t)key_length;
    record->struct_length = record->rejection ? 0 : (uint8_t)struct_length;
    return BATCH_OK;
}

static enum batch_status read_record(struct parser *parser, struct record_in *record)
{
    const uint8_t *start = parser->reader.at;
    uint32_t elements;
    bool opened;
    record->first = parser->batch->attribute_count;
    enum batch_status status = open(parser, MSGPACK_ARRAY, 2, &elements, &opened);
    if (status)
        return status;
    if (!opened || elements < 3 || elements > 4) {
        record->rejection = BAD_RECORD;
        parser->reader.at = start;
        return skip(parser, 2);
    }
    status = read_names(parser, record);
    if (status == BATCH_OK)
        status = read_attributes(parser, record);
    if (status == BATCH_OK && elements == 4) {
        status = read_natural(parser, 3, &record->time, &record->timed);
        if (!record->timed && !record->rejection)
            record->rejection = BAD_TIME;
    }
    return status;
}

static enum batch_status read_records(struct parser *parser)
{
    struct batch *batch = parser->batch;
    const uint8_t *start = parser->reader.at;
    uint32_t count;
    bool opened;
    enum batch_status status = open(parser, MSGPACK_ARRAY, 1, &count, &opened);
    if (status)
        return status;
    if (!opened)
        return refuse(parser, start, "records is no array");
    parser->has_records = true;
    batch_rewind(batch, parser->first_record, parser->first_attribute);
    for (; status == BATCH_OK && count > 0; count--) {
        if (batch->record_count == BATCH_RECORDS) {
            refuse(parser, start, "a batch holds 65536 records at most");
            return BATCH_TOO_LARGE;
        }
        if (memory_reserve(batch->memory, &batch->records, sizeof *batch->records,
                           &batch->record_capacity, (size_t)batch->record_count + 1))
            return BATCH_NO_MEMORY;
        struct record_in *record = &batch->records[batch->record_count];
        *record = (struct record_in){0};
        status = read_record(parser, record);
        batch->record_count += status == BATCH_OK;
    }
    return status;
}

static enum batch_status read_aggtypes_of(struct parser *parser)
{
    const uint8_t *start = parser->reader.at, *text;
    uint32_t count, length;
    bool opened;
    enum batch_status status = open(parser, MSGPACK_MAP, 2, &count, &opened);
    if (status == BATCH_OK && !opened)
        return refuse(parser, start, "aggtypes is {struct: {attribute: aggtype}}");
    for (; status == BATCH_OK && count > 0; count--) {
        start = parser->reader.at;
        status = read_text(parser, 3, &text, &length);
        if (status == BATCH_OK && !batch_is_name(text, length))
            return refuse(parser, start, "aggtypes names an attribute that is no name");
        if (status == BATCH_OK)
            status = read_text(parser, 3, &text, &length);
        if (status == BATCH_OK && !batch_is_aggtype(text, length))
            return refuse(parser, text, "an aggtype is none, sum, union, append or append:KEY");
    }
    return status;
}

static enum batch_status read_aggtypes(struct parser *parser)
{
    const uint8_t *start = parser->reader.at, *name;
    uint32_t count, length;
    bool opened;
    enum batch_status status = open(parser, MSGPACK_MAP, 1, &count, &opened);
    if (status == BATCH_OK && !opened)
        return refuse(parser, start, "aggtypes is {struct: {attribute: aggtype}}");
    for (; status == BATCH_OK && count > 0; count--) {
        const uint8_t *at = parser->reader.at;
        status = read_text(parser, 2, &name, &length);
        if (status == BATCH_OK && !batch_is_name(name, length))
            return refuse(parser, at, "aggtypes names a struct that is no name");
        if (status == BATCH_OK)
            status = read_aggtypes_of(parser);
    }
    parser->batch->aggtypes = start;
    parser->batch->aggtypes_length = (uint32_t)(parser->reader.at - start);
    return status;
}

static enum batch_status read_number_field(struct parser *parser, uint64_t *number, bool *found,
                                           const char *message)
{
    const uint8_t *start = parser->reader.at;
    enum batch_status status = read_natural(parser, 1, number, found);
    return status == BATCH_OK && !*found ? refuse(parser, start, message) : status;
}

static enum batch_status read_source(struct parser *parser)
{
    struct batch *batch = parser->batch;
    const uint8_t *start = parser->reader.at;
    enum batch_status status = read_text(parser, 1, &batch->source, &batch->source_length);
    if (status)
        return status;
    bool good = batch->source_length > 0 && batch->source_length <= SOURCE_BYTES &&
                msgpack_is_utf8(batch->source, batch->source_length);
    return good ? BATCH_OK : refuse(parser, start, "source is a text of 1 to 256 bytes UTF-8");
}

static bool is_field(const uint8_t *name, uint32_t length, const char *field)
{
    return length == strlen(field) && memcmp(name, field, length) == 0;
}

static enum batch_status read_field(struct parser *parser)
{
    struct batch *batch = parser->batch;
    const uint8_t *name;
    uint32_t length;
    enum batch_status status = read_text(parser, 1, &name, &length);
    if (status)
        return status;
    if (is_field(name, length, "records"))
        return read_records(parser);
    if (is_field(name, length, "source"))
        return read_source(parser);
    if (is_field(name, length, "seq"))
        return read_number_field(parser, &batch->seq, &batch->has_seq,
                                 "seq is no unsigned integer");
    if (is_field(name, length, "epoch"))
        return read_number_field(parser, &batch->epoch, &batch->has_epoch,
                                 "epoch is no unsigned integer");
    if (is_field(name, length, "newest"))
        return read_number_field(parser, &batch->newest, &batch->has_newest,
                                 "newest is no unsigned integer");
    if (is_field(name, length, "time"))
        return read_number_field(parser, &batch->time, &batch->has_time,
                                 "time is no unsigned integer");
    if (is_field(name, length, "aggtypes"))
        return read_aggtypes(parser);
    return skip(parser, 1);
}

/* The seq of a message whose other fields do not matter any more, where it is one. True where the
 * message is a whole map that names no seq at all. */
static bool has_no_seq(const uint8_t *message, size_t length, uint64_t *seq, bool *has_seq)
{
    bool named = false;
    struct msgpack_reader reader = {message, message + length};
    struct msgpack_head head;
    *has_seq = false;
    if (msgpack_read(&reader, &head) || head.type != MSGPACK_MAP)
        return false;
    for (uint32_t left = head.length; left > 0; left--) {
        const uint8_t *name;
        uint32_t name_length;
        bool is_seq = false;
        if (msgpack_read_str(&reader, &name, &name_length))
            is_seq = is_field(name, name_length, "seq");
        else if (msgpack_skip(&reader, 1))
            return false;
        struct msgpack_reader value = reader;
        if (msgpack_skip(&reader, 1))
            return false;
        named = named || is_seq;
        if (is_seq && msgpack_read(&value, &head) == MSGPACK_OK && head.type == MSGPACK_UINT) {
            *seq = head.natural;
            *has_seq = true;
        }
    }
    return reader.at == reader.end && !named;
}

static enum batch_status read_batch(struct parser *parser)
{
    struct batch *batch = parser->batch;
    uint32_t fields;
    bool opened;
    enum batch_status status = open(parser, MSGPACK_MAP, 0, &fields, &opened);
    if (status == BATCH_OK && !opened)
        return refuse(parser, parser->start, "a batch is a map");
    for (; status == BATCH_OK && fields > 0; fields--)
        status = read_field(parser);
    if (status)
        return status;
    if (parser->reader.at != parser->reader.end)
        return refuse(parser, parser->reader.at, "there are bytes behind the batch");
    if (batch->has_seq != batch->has_epoch)
        return refuse(parser, parser->reader.at, "epoch and seq go together: both or neither");
    if (batch->has_seq && batch->seq == 0)
        return refuse(parser, parser->reader.at, "seq counts from 1");
    if (batch->source == NULL)
        return refuse(parser, parser->reader.at, "source is missing");
    if (!parser->has_records)
        return refuse(parser, parser->reader.at, "records is missing");
    return BATCH_OK;
}

/* Every record of the message is told who sent it. */
static void set_source(struct batch *batch, uint32_t first)
{
    for (uint32_t at = first; at < batch->record_count; at++) {
        batch->records[at].source = batch->source;
        batch->records[at].source_length = (uint16_t)batch->source_length;
    }
}

enum batch_status batch_read(struct batch *batch, const uint8_t *message, size_t length,
                             size_t limit, struct batch_fault *fault)
{
    batch->record_count = batch->attribute_count = 0;
    return batch_read_more(batch, message, length, limit, fault);
}

enum batch_status batch_read_more(struct batch *batch, const uint8_t *message, size_t length,
                                  size_t limit, struct batch_fault *fault)
{
    struct batch fresh = {.memory = batch->memory,
                          .records = batch->records,
                          .attributes = batch->attributes,
                          .record_capacity = batch->record_capacity,
                          .attribute_capacity = batch->attribute_capacity,
                          .record_count = batch->record_count,
                          .attribute_count = batch->attribute_count};
    *batch = fresh;
    *fault = (struct batch_fault){"", 0};
    struct parser parser = {{message, message + length}, message, batch, fault,
                            batch->record_count, batch->attribute_count, false};
    enum batch_status status;
    if (length > limit) {
        fault->message = "the message is larger than COLLECTOR.message_size";
        status = BATCH_TOO_LARGE;
    } else {
        status = read_batch(&parser);
    }
    if (status == BATCH_OK) {
        batch->unanswered = !batch->has_seq;
        set_source(batch, parser.first_record);
    } else {
        batch->unanswered = has_no_seq(message, length, &batch->seq, &batch->has_seq);
        batch_rewind(batch, parser.first_record, parser.first_attribute);
    }
    return status;
}

void batch_rewind(struct batch *batch, uint32_t records, uint32_t attributes)
{
    batch->record_count = records;
    batch->attribute_count = attributes;
}

void batch_init(struct batch *batch, struct memory *memory)
{
    *batch = (struct batch){.memory = memory};
}

static void free_arrays(struct batch *batch)
{
    memory_free(batch->memory, batch->records, batch->record_capacity * sizeof *batch->records);
    memory_free(batch->memory, batch->attributes,
                batch->attribute_capacity * sizeof *batch->attributes);
    batch_init(batch, batch->memory);
}

void batch_drop_blocks(struct batch *batch)
{
    for (uint32_t at = 0; at < batch->attribute_count; at++) {
        struct attribute_in *attribute = &batch->attributes[at];
        memory_free(batch->memory, attribute->block, attribute->value_length);
        attribute->block = NULL;
    }
}

void batch_clear(struct batch *batch)
{
    const size_t usual = 16384;
    batch_drop_blocks(batch);
    batch->record_count = batch->attribute_count = 0;
    if (batch->record_capacity > usual || batch->attribute_capacity > usual)
        free_arrays(batch);
}

void batch_free(struct batch *batch)
{
    batch_clear(batch);
    free_arrays(batch);
}

bool batch_is_name(const uint8_t *text, size_t length)
{
    if (length == 0 || length > NAME_BYTES)
        return false;
    for (size_t at = 0; at < length; at++) {
        bool letter = (text[at] | 0x20) >= 'a' && (text[at] | 0x20) <= 'z';
        bool digit = text[at] >= '0' && text[at] <= '9' && at > 0;
        if (!letter && !digit && text[at] != '_')
            return false;
    }
    return true;
}

bool batch_is_key(const uint8_t *text, size_t length)
{
    if (length == 0 || length > KEY_BYTES)
        return false;
    const uint8_t *colon = memchr(text, ':', length);
    return colon != NULL && colon > text && colon < text + length - 1 &&
           msgpack_is_utf8(text, length);
}

bool batch_is_aggtype(const uint8_t *text, size_t length)
{
    static const char *const plain[] = {"none", "sum", "union", "append"};
    for (size_t at = 0; at < sizeof plain / sizeof *plain; at++)
        if (is_field(text, (uint32_t)length, plain[at]))
            return true;
    return length > 7 && length <= 7 + NAME_BYTES && memcmp(text, "append:", 7) == 0 &&
           msgpack_is_utf8(text, length);
}
