/* snapshot.h: what a snapshot of an engine is made of; save.c writes it, restore*.c read it.
 *
 * A snapshot is one body for each partition, and a head: msgpack arrays, told in docs/snapshot.md.
 * What keeps them, and its checksums, is not the engine's business.
 *
 *     head       [FORMAT, partitions, wall, sources, gone, aggtypes]
 *     partition  [number, wall, metrics, structs, sources, columns, positions, keys]
 *     key        [text, [record ...], [series ...]]
 *     record     [struct, source, column, value, column, value ...]
 *     series     [metric, next, open, carry, arrival, live, started, empty, real, states, bins]
 *                and [unkept, [lane ...]] behind it, where the metric has lanes;
 *                of one that sleeps, [metric, next]
 *
 * Partitions are written at different moments, each between two batches, the head after them all.
 * So what a partition doesn't know of it had not seen yet, and what the head doesn't know (any
 * more) had gone before the end: neither is wrong. Everything else that doesn't fit together is.
 *
 * Periods are told relative to the one of `wall`, arrivals as milliseconds before it: both are
 * short, and what was waited for goes on waiting, after a restart, by how much time has passed.
 */
#ifndef COLLECTORD_SNAPSHOT_H
#define COLLECTORD_SNAPSHOT_H

#include "engine.h"

/* The states of detectors are saved as they lie in memory. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
enum { SNAPSHOT_FORMAT = 1 };
#else
enum { SNAPSHOT_FORMAT = 0x101 };
#endif

enum { HEAD_FIELDS = 6, PARTITION_FIELDS = 8, KEY_FIELDS = 3, SOURCE_FIELDS = 7 };
enum { SERIES_FIELDS = 11, LANED_FIELDS = 13, ASLEEP_FIELDS = 2, ALGORITHM_FIELDS = 5 };
enum { BIN_FIELDS = 4, BIN_EXTREMES = 2 };
enum { SOURCE_NUMBERED = 1, SOURCE_BEREFT = 2 }; /* bits of a source's flags */

/* The states of all algorithms of a series lie side by side behind its header. */
static inline uint8_t *series_states(const struct series *series)
{
    return (uint8_t *)(uintptr_t)series + sizeof *series;
}

static inline uint32_t series_states_size(const struct metric *metric)
{
    return metric->bins - (uint32_t)sizeof(struct series);
}

/* ---- reading (restore_read.c) ------------------------------------------------------------------------
 * What is read was written by save.c, once; whether these bytes still are that, nobody knows. Each
 * of these returns false where they are not, and has said so in `fault`. */

struct restoring {
    struct msgpack_reader reader;
    const uint8_t *start;
    struct batch_fault *fault;
    enum restore_status status;
};

void restore_open(struct restoring *restoring, const uint8_t *bytes, size_t length,
                  struct batch_fault *fault);
bool restore_broken(struct restoring *restoring, const char *message);
bool restore_no_memory(struct restoring *restoring);

/* An array of how many elements; there are at least as many bytes. */
bool restore_array(struct restoring *restoring, uint32_t *elements);
bool restore_array_of(struct restoring *restoring, uint32_t elements);
bool restore_natural(struct restoring *restoring, uint64_t most, uint64_t *number);
bool restore_integer(struct restoring *restoring, int64_t *number);
bool restore_number(struct restoring *restoring, double *number);
bool restore_text(struct restoring *restoring, struct text *text);

/* A text, or nil: then its bytes are NULL. */
bool restore_optional(struct restoring *restoring, struct text *text);
bool restore_bin(struct restoring *restoring, uint32_t length, const uint8_t **bytes);

/* Any value but nil, as its bytes. */
bool restore_value(struct restoring *restoring, const uint8_t **value, uint32_t *length);

/* That nothing is left. */
bool restore_close(struct restoring *restoring);

/* ---- a partition's body (restore_partition.c, restore_series.c) -------------------------------------- */

enum { RESTORED_AT_ONCE = 256 }; /* records */

/* A name of the body, by its id there. */
struct restored_name {
    struct text text; /* bytes NULL: there is none */
    uint32_t hash;
    uint32_t source; /* the engine's id, or NONE; of sources only */
};

struct restored_names {
    struct restored_name *rows;
    uint32_t count;
};

struct body {
    struct restoring restoring;
    struct engine *engine;
    struct moment now;
    uint64_t number; /* of the partition that was saved */
    uint64_t period; /* of the moment it was saved */
    uint64_t passed; /* milliseconds since then */
    struct restored_names structs, sources, columns;
    uint32_t *metrics; /* the engine's number for each of the body's, or NONE */
    uint32_t metric_count;
    struct partition *target; /* where the key at hand, and the records of the batch, go */
    uint32_t order[RESTORED_AT_ONCE];
};

/* How far the partition had come, by source (restore.c). */
bool restore_positions(struct engine *engine, struct restoring *restoring);

/* A source of the body, by the id that comes next. */
bool restore_source_of(struct body *body, const struct restored_name **source);

/* Take on the metrics of the body, unless they are the engine's already. */
bool restore_metrics(struct body *body);

/* The series of a key of the target. */
bool restore_series(struct body *body, struct key *key);

#endif
