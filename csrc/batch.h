/* batch.h: a batch, read but not applied.
 *
 * batch_read checks the whole shape of a message first and copies nothing: names and values point
 * into the message's own bytes, which must outlive the batch. A batch that is broken as a whole is
 * an error; a record that is bad alone gets a code and leaves the others in peace.
 *
 *     { source, epoch, seq, newest, time, aggtypes, records: [ [key, struct, {name: value ...}, time] ] }
 *                                                      \____________ struct record_in ________/
 *                                                                     \__ attribute_in __/
 */
#ifndef COLLECTORD_BATCH_H
#define COLLECTORD_BATCH_H

#include "memory.h"
#include "msgpack.h"

enum {
    KEY_BYTES = 1024,
    NAME_BYTES = 128,
    SOURCE_BYTES = 256,
    BATCH_RECORDS = 65536,     /* records in a batch */
    BATCH_ATTRIBUTES = 1 << 20 /* attributes in all records of a batch */
};

/* Why a record was rejected; rejection_codes and rejection_messages say it in words. */
enum rejection {
    RECORD_GOOD,
    BAD_RECORD,
    BAD_KEY,
    BAD_STRUCT,
    BAD_ATTRIBUTE,
    BAD_TIME,
    BAD_VALUE,
    IN_FUTURE,
    LIMIT_KEYS,
    LIMIT_RECORDS,
    LIMIT_ATTRIBUTES,
    LIMIT_BYTES,
    LIMIT_SOURCE_RECORDS,
    LIMIT_SOURCE_BYTES,
    REJECTIONS
};

extern const char *const rejection_codes[REJECTIONS];
extern const char *const rejection_messages[REJECTIONS];

struct attribute_in {
    const uint8_t *name;
    const uint8_t *value; /* one whole msgpack value */
    void *block;          /* a copy of a long value, made before anything is changed */
    double sample;        /* the value, where is_sample */
    uint32_t value_length;
    uint16_t slot; /* where in its record it goes; NO_SLOT: nowhere */
    uint8_t name_length;
    bool is_nil;
    bool is_sample; /* a number, of a metric */
    bool is_real;   /* which came as a float */
};

struct record_in {
    const uint8_t *source; /* of its message */
    const uint8_t *key;
    const uint8_t *struct_name;
    uint64_t time;     /* microseconds since the epoch */
    uint32_t first;    /* of its attributes */
    uint32_t count;
    uint32_t hash;     /* of (key, struct, source), for the index of records */
    uint32_t key_hash;
    uint32_t record;   /* the id it was found or made under */
    uint32_t holder;   /* of the source, in limits.holdings */
    uint16_t partition;
    uint16_t source_length;
    uint16_t key_length;
    uint8_t struct_length;
    uint8_t rejection;
    bool removes; /* attributes is nil: the source's whole struct goes */
    bool timed;   /* it had a time of its own */
    bool passed;  /* its partition has it already: a replay after a crash passes over it */
};

struct batch {
    struct memory *memory;
    struct record_in *records;
    struct attribute_in *attributes;
    size_t record_capacity;
    size_t attribute_capacity;
    uint32_t record_count;
    uint32_t attribute_count;
    const uint8_t *source;
    uint32_t source_length;
    uint64_t epoch;
    uint64_t seq;
    uint64_t time;
    uint64_t newest; /* the number of the newest batch that the source holds */
    bool has_epoch, has_seq, has_time, has_newest;
    bool restores; /* its records come out of a snapshot: no samples, no limits */
    const uint8_t *aggtypes; /* a checked map of maps, or NULL */
    uint32_t aggtypes_length;
    bool unanswered; /* the message is a whole map without seq */
};

enum batch_status {
    BATCH_OK,
    BATCH_MALFORMED,
    BATCH_TOO_LARGE,
    BATCH_NO_MEMORY,
};

/* What a batch was refused for: a sentence without its end, and the byte of the message where. */
struct batch_fault {
    const char *message;
    size_t offset;
};

void batch_init(struct batch *batch, struct memory *memory);

/* Read a message of `length` bytes into `batch`, whose arrays are used again. A message of more
 * than `limit` bytes is too large; it is still looked through for its seq. */
enum batch_status batch_read(struct batch *batch, const uint8_t *message, size_t length,
                             size_t limit, struct batch_fault *fault);

/* Read one message more behind those that `batch` holds, of which it keeps the records alone: the
 * other fields are this message's. What is refused leaves the records as they were. */
enum batch_status batch_read_more(struct batch *batch, const uint8_t *message, size_t length,
                                  size_t limit, struct batch_fault *fault);

/* Take away all but the first records and attributes. */
void batch_rewind(struct batch *batch, uint32_t records, uint32_t attributes);

/* Free the copies of values that were not handed on. */
void batch_drop_blocks(struct batch *batch);

/* The same, and take away all records; arrays that one big batch made big are freed. */
void batch_clear(struct batch *batch);
void batch_free(struct batch *batch);

/* Whether a name is [A-Za-z_][A-Za-z0-9_]*, at most NAME_BYTES long. */
bool batch_is_name(const uint8_t *text, size_t length);

/* Whether a key is <table>:<name>, UTF-8, at most KEY_BYTES long; the table is not empty. */
bool batch_is_key(const uint8_t *text, size_t length);

/* Whether aggtype is one that views know. */
bool batch_is_aggtype(const uint8_t *text, size_t length);

#endif
