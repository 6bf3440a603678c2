/* partition.h: the unit of state: keys, records, series, and the lock over them.
 *
 *     key ---+--> record (struct, source) --> record ...     last values, as wire bytes
 *            |       slot (column, value) --+
 *            +--> series (metric) <---------+ --> series ... windows, detectors
 *
 * A partition is a pure function of what it is told: the records of batches, and the clock. It is
 * whole in itself, names included, so that it can be saved, dropped or handed over alone.
 *
 * Applying has two halves, so that a batch is applied whole or not at all when memory runs out:
 * partition_prepare finds or makes everything that a record needs and may fail; partition_commit
 * only writes, and can't. What prepare made and nobody used is taken away by partition_sweep.
 * Batches are applied one at a time (engine.h owns that lock); between the halves others may read,
 * and the clock may close periods, but nobody else makes or removes records.
 *
 * Lock: `lock` guards everything here. It is held for a bounded number of records, series or keys
 * at a time, but for what is rare: a new configuration, a clock that went back. Nothing waits under
 * it.
 */
#ifndef COLLECTORD_PARTITION_H
#define COLLECTORD_PARTITION_H

#include "batch.h"
#include "keys.h"
#include "names.h"
#include "series.h"

#include <pthread.h>

enum {
    RECORD_SLOTS = 256, /* attributes of a record */
    NO_SLOT = UINT16_MAX,
    INLINE_SLOTS = 2,
    INLINE_VALUE = 15,
    LONG_VALUE = 255
};

/* One attribute of a record: 24 bytes. A short value stands inside; for a long one `bytes` holds
 * its address and its length (see records.c). */
struct slot {
    uint32_t column; /* id of the name <struct>-<attribute> */
    uint32_t series; /* where samples go, an id in the column's metric: of the series, or of the
                        source's lane where the metric has lanes; NONE: not known yet */
    uint8_t bytes[INLINE_VALUE];
    uint8_t length; /* 0: absent; up to INLINE_VALUE; LONG_VALUE */
};

/* What one source told of one struct of one key: 88 bytes with two attributes. */
struct record {
    union { /* the free list runs through the first bytes of a free cell */
        uint32_t free;
        struct key *key;
    };
    uint32_t struct_name; /* id */
    uint32_t source;      /* id */
    uint32_t next;        /* records of the key */
    uint32_t previous;
    uint32_t stamps[2];     /* the round of each list of changes in which this record is noted */
    unsigned capacity : 15; /* slots there is room for: up to INLINE_SLOTS they stand inside */
    unsigned count : 15;    /* slots in use */
    unsigned swept : 1;     /* it stands in the list of those to be swept */
    unsigned shared : 1;    /* another source may tell of the same struct of the key */
    union {
        struct slot inside[INLINE_SLOTS];
        struct slot *outside;
    };
};

/* What changed: a struct of sources (id of its name), or a proxy UVE (metric and algorithm). */
struct change {
    uint32_t key;
    uint32_t what; /* CHANGE_PROXY | metric << 8 | algorithm, or the id of a struct's name */
};

enum { CHANGE_LIMIT = 1 << 22, ALL_OBSERVED = 0xff /* algorithms of the metric */ };
#define CHANGE_PROXY 0x80000000u

/* Changes are noted in lists, each for one reader who takes it now and then. ANNOUNCED has what
 * protocol.md calls a change; OBSERVED has what somebody asked for by name, quiet steps included.
 * A list's round lasts until it is taken; within it, what is noted is not noted there again. */
enum { ANNOUNCED, OBSERVED, LISTS };
enum { TO_ANNOUNCED = 1u << ANNOUNCED, TO_OBSERVED = 1u << OBSERVED }; /* sets of lists */

struct change_list {
    struct change *changes;
    size_t capacity, count;
};

/* What all partitions of an engine share: what is allowed, and what is held.
 * The counts are atomic, since partitions change them under their own locks. */
struct limits {
    uint64_t keys, records, bytes, results, source_records, source_bytes;
    atomic_uint_fast64_t held_keys, held_records, held_series;
    struct holding *holdings; /* by the engine's id of the source; guarded by engine.ingest */
    atomic_bool waiting;      /* no period closes: sources are awaited after a restart */
};

/* What one source holds in all partitions. */
struct holding {
    uint64_t bytes; /* of records, their slots and long values */
    uint32_t records;
    bool leaving; /* the source is gone: its records are being removed */
};

/* The time by two clocks, in microseconds. Periods are numbered by the wall clock, since the
 * epoch, which may be set; what is waited for is measured on the steady one, which may not. */
struct moment {
    uint64_t wall;
    uint64_t steady;
};

struct partition_counters {
    uint64_t samples, late, closed, deleted, results_dropped, changes_dropped, observed_dropped;
};

struct partition {
    pthread_mutex_t lock;
    struct memory *memory;
    struct limits *limits;
    struct moment clock; /* as last told */
    uint64_t latest;     /* the latest steady time, until it goes back by more than a moment */
    int64_t offset;      /* of the wall clock from the steady one, in milliseconds */
    int64_t due_offset;  /* about where it was when all that is due was last looked at */
    uint64_t base;       /* milliseconds of the steady clock: where arrivals count from */
    bool frozen; /* it is being saved: nothing may change, or be recycled */
    uint64_t lateness;  /* milliseconds */
    struct keys keys;
    struct names structs, tables;
    struct names columns; /* its tag is the metric, or -1 */
    struct names sources; /* its tag is how many records it has, its number the engine's id */
    struct pool records;
    struct index record_index; /* hash of (key, struct, source) -> record */
    struct metric *metrics;
    size_t metric_capacity;
    uint32_t metric_count;
    uint32_t *sweep; /* records that may be empty, or may hold absent slots */
    size_t sweep_capacity;
    uint32_t sweep_count;
    unsigned watching; /* the lists in which changes are noted */
    uint32_t rounds[LISTS];
    struct change_list lists[LISTS];
    const struct observed *observed; /* the engine's; NULL: nothing is */
    struct result *results;
    size_t result_capacity, result_count;
    size_t result_room; /* the capacity, as far as the limit goes */
    struct result *spare_results; /* an array that was given back, for the next round */
    size_t spare_capacity;
    struct result discarded; /* where a result is written that is not kept */
    bool results_taken; /* somebody holds key ids out of the last partition_take_results */
    struct partition_counters counters;
};

int partition_init(struct partition *partition, struct memory *memory, struct limits *limits,
                   uint64_t seed);
void partition_free(struct partition *partition);

/* ---- applying (prepare.c, records.c); call with the lock held ------------------------------------ */

/* Tell the steady time, in microseconds. */
void partition_steady(struct partition *partition, uint64_t steady);

/* Tell the time by both clocks; either may have gone back. */
void partition_clock(struct partition *partition, struct moment now);

/* Set how long, in milliseconds, a period stays open for those that come late. */
void partition_lateness(struct partition *partition, uint64_t lateness);

enum { NO_MEMORY = -1, MUST_WAIT = 1 };

/* Prepare the records `order[0..count)` of a batch at the wall time `now`; 0, NO_MEMORY, or
 * MUST_WAIT where a sample would close a period while none may close. */
int partition_prepare(struct partition *partition, struct batch *batch, const uint32_t *order,
                      uint32_t count, uint64_t now);
void partition_commit(struct partition *partition, struct batch *batch, const uint32_t *order,
                      uint32_t count);

/* What the record's source holds. */
static inline struct holding *holding_of(const struct partition *partition,
                                         const struct record *record)
{
    return &partition->limits->holdings[names_at(&partition->sources, record->source)->number];
}

/* The key of that text, made if need be; NULL (no memory). */
struct key *partition_key(struct partition *partition, const uint8_t *text, size_t length,
                          uint32_t hash);

/* Take away what a batch left empty, some of it; true when all is done. */
bool partition_sweep(struct partition *partition);

/* Take away the records of sources that are leaving, from the key `*cursor` on, some thousands at
 * the most; `*cursor` moves on. True when all is done. */
bool partition_remove_leaving(struct partition *partition, uint32_t *cursor);

/* Mark which records of a key share their struct, after one was added (id) or freed (NONE). */
void partition_mark_shared(struct partition *partition, struct key *key, uint32_t added);

/* Release a key that nothing holds any more. */
void partition_release_key(struct partition *partition, struct key *key);

/* Free what the slots of a record hold. */
void partition_free_slots(struct partition *partition, struct record *record);

/* Let every slot of a metric be bound anew: its series are about to be laid out otherwise. */
void partition_unbind(struct partition *partition, uint32_t metric);

/* Let samples of a slot find their series, and their source's lane; 0 or -1 (no memory). */
int partition_bind_slot(struct partition *partition, struct record *record, uint16_t slot,
                        const struct attribute_in *in);

/* The metric whose samples a column holds, or NULL. */
static inline struct metric *partition_column_metric(const struct partition *partition,
                                                     uint32_t column)
{
    int32_t number = names_at(&partition->columns, column)->tag;
    return number < 0 ? NULL : &partition->metrics[number];
}

/* The wire bytes of a slot. */
const uint8_t *record_value(const struct slot *slot, uint32_t *length);

static inline struct slot *record_slots(struct record *record)
{
    return record->capacity <= INLINE_SLOTS ? record->inside : record->outside;
}

/* ---- series (series.c); call with the lock held ------------------------------------------------- */

/* The series of a key and a metric, made if need be: its id, or NONE (no memory). */
uint32_t series_of(struct partition *partition, struct key *key, uint32_t metric);

/* A sample of `period`, `offset` microseconds into it. `lane` is NULL for a metric without. */
void series_add(struct partition *partition, uint32_t metric, uint32_t id, struct lane *lane,
                double value, bool real, uint32_t period, uint32_t offset);

/* The lane of a source in a series, made if need be: its id, or NONE (no memory). */
uint32_t series_lane(struct partition *partition, uint32_t metric, uint32_t series,
                     uint32_t source);

/* Close what the clock closes in the slabs from `*cursor` on, some thousand series at the most;
 * `*cursor` moves on, and is UINT64_MAX when all is done. Returns how many periods were closed. */
uint64_t partition_advance(struct partition *partition, uint64_t *cursor);

/* Take a sleeping series out of its key's list and free it. */
void series_free(struct partition *partition, uint32_t metric, uint32_t id);

/* ---- changes and results (changes.c); call with the lock held ----------------------------------- */

void partition_note(struct partition *partition, unsigned lists, uint32_t key, uint32_t what);

/* Proxy UVEs of a series changed: algorithms to announce, and whether it is observed (not 0). */
void partition_note_series(struct partition *partition, uint32_t metric, struct series *series,
                           uint16_t announced, uint16_t observed);

/* Room for more results, or the place where they are discarded. */
struct result *partition_make_result(struct partition *partition);

/* A place for the next result, to be filled. */
static inline struct result *partition_next_result(struct partition *partition)
{
    return partition->result_count < partition->result_room
               ? &partition->results[partition->result_count++]
               : partition_make_result(partition);
}

/* The id of a proxy UVE's struct name, whose text stays until changes are taken; NONE. */
uint32_t partition_proxy_name(struct partition *partition, uint32_t what);

/* Forget the names and ids of what went, unless a reader may still ask for them. */
void partition_recycle(struct partition *partition);

/* Begin or cease to note changes in a list (ANNOUNCED or OBSERVED), which is empty then. */
void partition_watch(struct partition *partition, unsigned list, bool on);

/* How many changes a list has. */
size_t partition_change_count(const struct partition *partition, unsigned list);

/* Write [[key, struct], ...] of what a list has of keys that begin with one of the prefixes, and
 * forget all of it. Something noted twice may be written twice. */
struct text {
    const char *bytes;
    size_t length;
};
void partition_take_changes(struct partition *partition, unsigned list,
                            const struct text *prefixes, size_t prefix_count,
                            struct msgpack_writer *writer);

/* ---- what is observed (observe.c); call with the lock held --------------------------------------- */

/* Names, sorted by length and bytes:
 *
 *     S, *            struct S of sources, any struct: that it comes and goes
 *     S-A, S-*, *-*   its attribute A; all of its attributes; all of any struct, proxy UVEs too
 *     P-S-A           proxy UVE P-S-A: that it comes and goes
 *     P-S-A.value, P-S-A.sigma, P-S-A.staging
 *                     the value of each period; its sigma; and every sample
 *
 * With thresholds only a number that moves past one of them is news. That is so for A of S where S
 * is told by one source alone, and for value and sigma. What is, or was, no number is news always.
 */
struct observed_name {
    struct text text;
    const double *thresholds; /* in order */
    size_t count;             /* 0: whatever changes is news */
};

struct observed {
    struct observed_name *names;
    size_t count;
};

/* Look for these from now on, or (NULL) for nothing; they stay the caller's. */
void partition_observe(struct partition *partition, const struct observed *observed);

/* The mark of a column, <struct>-<attribute>: 0 where it isn't observed, see
 * partition_column_observed; and whether a struct is. */
uint32_t partition_observes_column(const struct partition *partition, const char *name,
                                   size_t length, size_t struct_length);
bool partition_observes_struct(const struct partition *partition, const char *name,
                               size_t length);

/* What is observed of a column, or NULL. */
static inline const struct observed_name *partition_column_observed(
    const struct partition *partition, uint32_t column)
{
    uint32_t mark = names_at(&partition->columns, column)->number;
    return mark ? &partition->observed->names[mark - 1] : NULL;
}

/* Whether it is news that a number became another. */
bool observed_crosses(const struct observed_name *name, double before, double now);

/* Hand over the results, `*count` of them in an array of `*capacity`, which is given back later:
 * its memory serves the next round, where fresh memory would cost more than the results do. */
struct result *partition_take_results(struct partition *partition, size_t *count,
                                      size_t *capacity);
void partition_give_results(struct partition *partition, struct result *results, size_t capacity);

/* ---- metrics and reading (configure.c, read.c); call with the lock held -------------------------- */

/* Take on other metrics; what keeps its name and algorithms keeps its state. 0 or -1 (no memory,
 * nothing changed). `wanted` are laid out; their pools are empty. */
int partition_configure(struct partition *partition, const struct metric *wanted, uint32_t count);

/* The metric of that name, or -1. */
int32_t partition_metric(const struct partition *partition, const void *name, size_t length);

/* How many records a key has; 0 where there is no such key. */
uint32_t partition_record_count(struct partition *partition, const void *text, size_t length);

/* Write [records, proxies] of a key; false where there is no such key. */
bool partition_read(struct partition *partition, const void *text, size_t length,
                    struct msgpack_writer *writer);

#endif
