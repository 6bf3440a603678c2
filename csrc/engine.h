/* engine.h: all partitions, and the sources that feed them.
 *
 * engine_apply takes messages: each is read, its place in its source's numbering is judged, its
 * records are handed to their partitions, and what became of it is told in a struct outcome. Short
 * messages that follow one another and want no answer are applied as if they were one.
 *
 * Locks, in this order: `ingest` (one batch at a time; also guards the sources, the aggtypes and
 * the counters), then the lock of one partition. No call holds two partitions' locks. Readers and
 * the clock take only a partition's lock; those that ask for sources take `ingest` alone.
 */
#ifndef COLLECTORD_ENGINE_H
#define COLLECTORD_ENGINE_H

#include "partition.h"

enum {
    OUTCOME_REJECTED = 16, /* bad records that an outcome lists */
    GATHERED = 128         /* short messages that are applied together */
};

enum outcome_status {
    OUTCOME_APPLIED,
    OUTCOME_DUPLICATE,
    OUTCOME_RESYNC,
    OUTCOME_MALFORMED,
    OUTCOME_TOO_LARGE,
    OUTCOME_OVERLOADED,
    OUTCOME_STALE_EPOCH,
    OUTCOMES
};

extern const char *const outcome_names[OUTCOMES];

struct outcome {
    enum outcome_status status;
    bool answer; /* the source wants to hear of it */
    bool has_seq;
    uint64_t seq;
    uint64_t last;    /* resync: the last number that was applied */
    uint64_t durable; /* the last number that is saved for good */
    uint32_t applied;
    uint32_t rejected; /* in all; the first OUTCOME_REJECTED are listed */
    struct outcome_row {
        uint32_t index;
        uint8_t rejection;
    } rows[OUTCOME_REJECTED];
    struct batch_fault fault;
};

struct source {
    uint64_t last_seen; /* microseconds since the epoch */
    uint64_t epoch;
    uint64_t seq;
    uint64_t durable;
    bool numbered;
};

struct engine_counters {
    uint64_t bytes, records, outcomes[OUTCOMES], rejected[REJECTIONS], aggtypes_dropped;
};

struct engine {
    struct memory memory;
    struct limits limits;
    uint64_t batch_bytes;  /* limit of a message */
    uint64_t source_limit; /* of sources */
    uint64_t aggtype_limit;
    uint64_t seed;
    pthread_mutex_t ingest;
    struct partition *partitions;
    uint32_t partition_count;
    struct batch batch;
    uint32_t *order; /* records of the batch, by partition */
    size_t order_capacity;
    uint32_t *starts; /* where each partition's begin in it; one more than partitions */
    uint32_t first_partition, end_partition; /* those the batch has records of lie between */
    struct gathered { /* a message that is applied with others */
        uint32_t source;
        uint32_t end; /* of its records */
    } gathered[GATHERED];
    uint32_t gathered_count;
    struct names source_names;
    struct source *sources; /* by the id of the name */
    size_t source_capacity;
    struct names aggtypes; /* <struct>-<attribute>; its tag is an id in aggtype_texts, or -1 */
    struct names aggtype_texts;
    atomic_uint_fast64_t aggtypes_version; /* goes up with every change of them */
    struct engine_counters counters;
};

/* 0 or -1 (no memory). `memory` may have been given another resize; NULL: realloc. */
int engine_init(struct engine *engine, uint32_t partitions, uint64_t seed,
                void *(*resize)(void *, void *, size_t), void *context);
void engine_free(struct engine *engine);

/* Take on metrics, laid out with their pools empty, and lateness in milliseconds; 0 or -1 (no
 * memory: partitions before the one that failed have the new ones, which may be asked for again). */
int engine_configure(struct engine *engine, const struct metric *metrics, uint32_t count,
                     uint64_t lateness);

/* Apply messages in their order, at the time `now` in microseconds; an outcome for each. */
void engine_apply(struct engine *engine, const struct text *messages, size_t count, uint64_t now,
                  struct outcome *outcomes);

/* Make room for the aggtypes of the batch, or set them when `commits`; 0 or -1 (no memory). */
int engine_take_aggtypes(struct engine *engine, bool commits);

/* Close what the clock closes in one partition; returns how many periods were closed. */
uint64_t engine_advance(struct engine *engine, uint32_t partition, uint64_t now);

/* Keys in order of their bytes: the first `limit` that are greater than `after`, belong to `table`
 * (unless empty), match `match` (unless empty) and one of `patterns` (unless there are none). */
struct key_query {
    struct text table, match, after;
    const struct text *patterns;
    size_t pattern_count;
    size_t limit;
};

/* Copies of the keys' texts one after the other; key n is `lengths[n]` bytes. */
struct key_list {
    struct memory *memory;
    struct listed_key {
        char *text;
        size_t length;
    } * keys; /* a heap while it is filled: the greatest first; then in order */
    size_t capacity, count;
    bool failed; /* no memory */
};

void engine_keys(struct engine *engine, const struct key_query *query, struct key_list *list);
void key_list_free(struct key_list *list);

/* Write [[table, keys], ...]; a table stands once for each partition that has it. */
void engine_tables(struct engine *engine, struct msgpack_writer *writer);

/* Write [[source, last_seen, epoch or nil, seq or nil, durable], ...]. */
void engine_sources(struct engine *engine, struct msgpack_writer *writer);

/* Write [[source, records held], ...]; a source stands once for each partition that has some. */
void engine_source_records(struct engine *engine, struct msgpack_writer *writer);

/* Write [[<struct>-<attribute>, aggtype], ...]. */
void engine_aggtypes(struct engine *engine, struct msgpack_writer *writer);

uint32_t engine_source_count(struct engine *engine);

/* A copy of the engine's own counters. */
struct engine_counters engine_own_counters(struct engine *engine);

/* Hold and let go of one partition's lock, to call what partition.h has. */
void engine_lock(struct engine *engine, uint32_t partition);
void engine_unlock(struct engine *engine, uint32_t partition);

/* The sum of all partitions' counters. */
struct partition_counters engine_partition_counters(struct engine *engine);

#endif
