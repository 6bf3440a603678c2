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
    OUTCOME_UNAUTHORISED,
    OUTCOMES
};

#define TO_BE_SET UINT64_MAX

extern const char *const outcome_names[OUTCOMES];

struct outcome {
    enum outcome_status status;
    bool answer;  /* the source wants to hear of it */
    bool has_seq;
    uint32_t source; /* the engine's id, where it is known; else NONE */
    uint64_t seq;
    uint64_t last;    /* resync: the last number that was applied */
    uint64_t durable; /* the last number that is saved for good */
    uint64_t expired; /* the number with which the source came back after it was gone, and its
                         records with it: it should have told all of its state since; 0 */
    uint32_t applied;
    uint32_t rejected; /* in all; the first OUTCOME_REJECTED are listed */
    struct outcome_row {
        uint32_t index;
        uint8_t rejection;
    } rows[OUTCOME_REJECTED];
    struct batch_fault fault;
};

/* Who sends a message: the patterns of the source names it may speak for. */
struct speaker {
    const struct text *patterns;
    size_t count;
};

struct message {
    const char *bytes;
    size_t length;
    const struct speaker *speaker; /* NULL: may speak for every source */
};

enum source_awaited {
    SOURCE_SETTLED, /* nothing is awaited of it */
    SOURCE_ABSENT,  /* it was known before the restart and has not come back yet */
    SOURCE_BACK     /* it has, and may still be sending what it kept */
};

struct source {
    uint64_t last_seen; /* microseconds since the epoch */
    uint64_t heard;     /* the same on the steady clock */
    uint64_t epoch;
    uint64_t seq;       /* the last number that all partitions have */
    uint64_t ahead;     /* the last number that some partition has: more than seq only in a replay */
    uint64_t durable;   /* the last number that is saved for good */
    uint64_t told;      /* the durable that the source was told last */
    uint64_t saving_epoch, saving_seq; /* where it stood when the snapshot being made was begun */
    uint64_t target;    /* SOURCE_BACK: the number that it has to come to */
    uint64_t returned;  /* SOURCE_BACK: when, on the steady clock */
    uint32_t older, newer; /* the list of those that are gone */
    uint8_t awaited;    /* enum source_awaited */
    bool has_target;
    bool is_new; /* nothing of it was applied yet */
    bool numbered;
    bool gone;
    bool bereft; /* it had records when it went */
    uint64_t returned_seq; /* the number of the batch it came back with after that, in this epoch; 0 */
};

/* After a restart: up to where each partition that was saved had come, by source. Partitions are
 * those of the snapshot, which may have had another number of them. */
struct replay {
    uint32_t partitions; /* while a snapshot is being restored: that there is room for */
    uint32_t sources; /* ids there were */
    uint64_t *seqs;   /* [partition * sources + id]; NULL when nothing is replayed any more */
    uint64_t *epochs; /* the same, while a snapshot is being restored */
    uint32_t behind;  /* sources that some partition is ahead of */
    uint32_t saved;   /* partitions of the snapshot */
    uint32_t restored; /* those that were brought back */
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
    size_t holding_capacity;
    uint32_t oldest_gone, newest_gone; /* the list of sources that are gone */
    uint32_t awaited; /* sources that are not settled yet, see limits.waiting */
    bool held_back;   /* a batch was refused meanwhile, and will come again */
    atomic_uint_fast64_t closes_from; /* steady time until which it may; TO_BE_SET */
    bool saving;      /* a snapshot is being made */
    bool copying;     /* and is not copied out yet: no source goes, ids stay what they are */
    bool untold;      /* some source may not know yet what is durable */
    struct replay replay;
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

/* Apply messages in their order; an outcome for each. */
void engine_apply(struct engine *engine, const struct message *messages, size_t count,
                  struct moment now, struct outcome *outcomes);

/* Make room for the aggtypes of the batch, or set them when `commits`; 0 or -1 (no memory). */
int engine_take_aggtypes(struct engine *engine, bool commits);

/* Close what the clock closes in one partition; returns how many periods were closed. None is while
 * sources are awaited or the partition is being saved. */
uint64_t engine_advance(struct engine *engine, uint32_t partition, struct moment now);

/* ---- sources (sources.c) --------------------------------------------------------------------------- */

/* Whether the source of the batch is known. */
bool engine_has_source(const struct engine *engine);

/* The source of the batch, made if need be; NULL where there is no memory, or no room for one
 * more. The longest gone makes way. */
struct source *engine_source(struct engine *engine);

/* Whether an id is that of a source; one that was forgotten keeps its id for a while. */
static inline bool engine_knows(const struct engine *engine, uint32_t id)
{
    const struct name *name = names_at(&engine->source_names, id);
    return name != NULL && name->refs > 0;
}

/* A source that is new with a batch that could not be applied is not known after all. */
void engine_forget(struct engine *engine, struct source *source);

/* A source is gone from now on; its records are another matter. */
void engine_let_go(struct engine *engine, uint32_t id);

/* Before anything of a source is applied: where its records are just being removed, all of them
 * are first. */
void engine_return(struct engine *engine, const struct source *source);

/* Take note that a source is heard of: it is not gone (any more), and settled where it has come to
 * what it had. `outcome` is told whether it was gone. */
void engine_heard(struct engine *engine, struct source *source, struct moment now,
                  struct outcome *outcome);

/* Whether the batch is the next of its source, or else what it is; then `*last` is the number that it
 * has come to. */
enum outcome_status engine_judge(struct engine *engine, struct source *source, uint64_t *last);

/* Nothing is awaited of the source any more; true where that is so of all sources now, and was not
 * before. */
bool engine_settle_one(struct engine *engine, struct source *source);

/* All partitions have come to where one of them was. */
void engine_end_replay(struct engine *engine, struct source *source);
void engine_free_replay(struct engine *engine);

/* Sources that were not heard from for `timeout` microseconds go, and their records with them;
 * writes their names as an array. */
void engine_expire(struct engine *engine, uint64_t steady, uint64_t timeout,
                   struct msgpack_writer *writer);

/* Sources that are back for `quiet` microseconds, and of which it isn't known how much they kept,
 * are settled; returns how many are still awaited. */
uint32_t engine_settle(struct engine *engine, uint64_t steady, uint64_t quiet);

/* Await nobody any more; returns how many were. */
uint32_t engine_settle_all(struct engine *engine);

/* Write [[id, seq, durable], ...] of sources that were told of less than is durable and have been
 * silent for `quiet` microseconds; they count as told. */
void engine_untold(struct engine *engine, uint64_t steady, uint64_t quiet,
                   struct msgpack_writer *writer);

/* ---- saving and bringing back (save.c, restore.c) --------------------------------------------------- */

/* Begin a snapshot; false where it can't be made yet: a replay is under way whose snapshot had
 * another number of partitions. */
bool engine_begin_save(struct engine *engine);

/* Write the state of one partition, as it is between two batches: docs/snapshot.md. No lock of the
 * partition is held meanwhile, but nothing changes in it: batches wait, and its clock stands. */
void engine_save_partition(struct engine *engine, uint32_t partition, struct moment now,
                           struct msgpack_writer *writer);

/* Write what belongs to no partition: sources, aggtypes. After all partitions. */
void engine_save_head(struct engine *engine, struct moment now, struct msgpack_writer *writer);

/* End it; what it holds is saved for good, or not. */
void engine_end_save(struct engine *engine, bool durable);

enum restore_status { RESTORE_OK, RESTORE_BROKEN, RESTORE_NO_MEMORY };

/* Bring back, into a new engine, what was saved: the head first, then the partitions in the order of
 * their numbers, then the end. `now` is the present; time that passed since counts as silence. The
 * metrics come with the partitions. An engine that failed is only good for engine_free. */
enum restore_status engine_restore_head(struct engine *engine, const uint8_t *bytes, size_t length,
                                        struct moment now, struct batch_fault *fault);
enum restore_status engine_restore_partition(struct engine *engine, const uint8_t *bytes,
                                             size_t length, struct moment now,
                                             struct batch_fault *fault);
enum restore_status engine_restore_end(struct engine *engine, struct batch_fault *fault);

/* ----------------------------------------------------------------------------------------------------- */

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

/* Write [[source, last_seen, epoch or nil, seq or nil, durable, gone], ...]. */
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
