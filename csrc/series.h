/* series.h: one metric of one key, in a ring of 8 periods, and the algorithms that run on it.
 *
 *     struct series | state of each algorithm | bin 0 ... bin 7 | extremes 0 ... 7 | lanes
 *     \_ 48 bytes _/ \_ 8 alone, 40 with EWM _/ \_ 128 bytes __/ \__ only where a reducer needs __/
 *
 * All series of a metric have the same layout and lie side by side in a pool (224 bytes each for
 * AggProxySum and AggProxySumAnomalyEWM01 together). Several algorithms share the one ring.
 *
 *     closed <|  next ........ newest ....... next + 7  |> a sample out here closes `next`
 *              \______ bins [period % 8] _____________/
 *
 * `live` holds a bit for each algorithm whose proxy UVE exists, `started` for each that has seen a
 * period with samples close. A series with no live algorithm sleeps: nothing in it is open, and
 * `next` only remembers what is closed.
 *
 * Arrivals are milliseconds since the partition's `base`, which 32 bits hold; the partition moves
 * `base` along long before they wrap.
 */
#ifndef COLLECTORD_SERIES_H
#define COLLECTORD_SERIES_H

#include "pool.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    PERIOD_US = 60000000,
    PERIOD_MS = 60000,
    RING = 8,            /* open periods */
    IDLE_MS = 60000,     /* silence after which empty periods close */
    ALGORITHMS = 16,     /* on one metric */
    ALGORITHM_NAME = 64, /* bytes, its end included */
    DETECTOR_BYTES = 40, /* of a detector's state, at most */
    METRIC_NAME = 258    /* <struct>-<attribute> and its end */
};

struct bin {
    double sum;
    uint32_t count;
    uint32_t arrival; /* of the newest sample */
};

struct extremes {
    double least;
    double greatest;
};

/* The last sample of one source in each open period; lanes of a series are a list. */
struct lane {
    uint32_t next;
    uint32_t series;
    uint32_t source;    /* id of its name, which the lane keeps alive */
    uint8_t filled;     /* a bit for each bin that holds a sample */
    uint8_t attached;   /* a slot of a record points here */
    uint32_t offset[RING]; /* microseconds into the period */
    double value[RING];
};

struct series {
    _Alignas(double) uint32_t sibling; /* the key's next series, of metric sibling_metric; doubles
                                          follow the struct */
    uint32_t key;
    uint32_t next;    /* the oldest period that is not closed; all before it are */
    uint32_t newest;  /* the newest period with samples; before `next`: none is open */
    uint32_t carry;   /* the last arrival for periods before `next`, or when it awoke */
    uint32_t arrival; /* the last arrival of all */
    uint32_t stamps[2]; /* the rounds of changes that `changed` speaks of, and it is observed in */
    uint16_t live;
    uint16_t started;
    uint16_t changed;
    uint16_t empty; /* consecutive closed periods without a sample */
    uint16_t sibling_metric;
    uint16_t real; /* a sample was a float */
};

struct metric;

/* How the samples of a period become one number. */
struct reducer {
    const char *name;
    /* NaN where it kept nothing of the period, because it was configured only during it. */
    double (*reduce)(const struct metric *metric, const struct series *series, unsigned slot);
    bool needs_extremes;
    bool needs_lanes;
    bool steps_when_empty; /* an empty period is a step of 0; else it is none */
    bool always_real;      /* its answer is a float even for whole samples */
};

struct algorithm;

/* What one closed period of one algorithm of one series came to. */
struct result {
    uint32_t key;
    uint32_t period;
    double value; /* what the reducer said; the rest is the detector's */
    double mean;
    double stddev;
    double sigma;
    uint32_t samples;
    uint16_t metric;
    uint8_t algorithm;
    uint8_t flags;
};

enum {
    RESULT_REPORTED = 1, /* the proxy UVE has a value */
    RESULT_QUIET = 2,    /* which is not to be announced */
    RESULT_DELETED = 4   /* the proxy UVE is gone */
};

/* What is made of the numbers of successive periods. `state` is `size` bytes, zero at the start. */
struct detector {
    const char *name;
    uint32_t size;
    bool has_staging; /* its proxy UVE also shows the period that is not closed */
    /* Take the next value, result->value, and fill in the rest. */
    void (*step)(const struct algorithm *algorithm, void *state, struct result *result);
    /* Fill in the last step again. */
    void (*show)(const struct algorithm *algorithm, const void *state, struct result *result);
};

extern const struct reducer reducers[];
extern const struct detector detectors[];
extern const unsigned reducer_count, detector_count;

const struct reducer *reducer_named(const char *name);
const struct detector *detector_named(const char *name);

struct algorithm {
    char name[ALGORITHM_NAME];
    const struct reducer *reducer;
    const struct detector *detector;
    double alpha;
    uint32_t minimum; /* steps before it reports: floor(1 / alpha) */
    uint32_t timeout; /* consecutive empty periods that end it; 0: none do */
    uint32_t state;   /* offset in the series */
};

struct metric {
    char name[METRIC_NAME]; /* empty: no metric has this number now */
    uint16_t name_length;
    uint16_t struct_length;
    uint16_t algorithm_count;
    uint16_t all;     /* a bit for each algorithm */
    uint16_t staging; /* a bit for each whose proxy UVE changes with every sample */
    uint16_t observed;         /* a bit for each that is observed (partition.h) */
    uint16_t observed_staging; /* and for each of which every sample is */
    const struct observed_name *observed_value[ALGORITHMS], *observed_sigma[ALGORITHMS];
    struct algorithm algorithms[ALGORITHMS];
    uint32_t bins, extremes, lanes; /* offsets in the series; 0: not kept */
    struct pool pool;               /* of series; a slab's header is their `due` */
    struct pool lane_pool;
};

/* Whether an algorithm, or all of a metric's, mean the same: then its state can be carried over. */
bool algorithm_same(const struct algorithm *one, const struct algorithm *other);
bool metric_same(const struct metric *one, const struct metric *other);

/* Lay out a metric whose name and algorithms are set: offsets, minima, masks, empty pools. */
void metric_layout(struct metric *metric);

static inline struct series *series_at(const struct metric *metric, uint32_t id)
{
    return pool_at(&metric->pool, id);
}

static inline struct bin *series_bins(const struct metric *metric, const struct series *series)
{
    return (struct bin *)((uint8_t *)(uintptr_t)series + metric->bins);
}

static inline struct extremes *series_extremes(const struct metric *metric,
                                               const struct series *series)
{
    return (struct extremes *)((uint8_t *)(uintptr_t)series + metric->extremes);
}

/* Of a metric with lanes: where their list begins; how many have no slot; and a bit for each bin
 * that had samples before lanes were kept. */
static inline uint32_t *series_lanes(const struct metric *metric, const struct series *series)
{
    return (uint32_t *)((uint8_t *)(uintptr_t)series + metric->lanes);
}

static inline void *series_state(const struct algorithm *algorithm, const struct series *series)
{
    return (uint8_t *)(uintptr_t)series + algorithm->state;
}

static inline bool series_has_open(const struct series *series)
{
    return series->live && series->newest >= series->next;
}

/* The second, at the earliest, at which the clock could close something: a lower bound. */
static inline uint32_t *series_due(const struct metric *metric, uint32_t id)
{
    return (uint32_t *)pool_header(&metric->pool, id) + id % POOL_SLAB;
}

#endif
