/* menu.c: the tables of window reducers and detectors. A new one is a row here, and a row in
 * collectord/proxies.py for its name. */
#include "series.h"

#include <math.h>
#include <string.h>

/* ---- reducers: the samples of one period as one number ---------------------------------------- */

static double reduce_sum(const struct metric *metric, const struct series *series, unsigned slot)
{
    return series_bins(metric, series)[slot].sum;
}

static double reduce_count(const struct metric *metric, const struct series *series,
                           unsigned slot)
{
    return series_bins(metric, series)[slot].count;
}

static double reduce_avg(const struct metric *metric, const struct series *series, unsigned slot)
{
    const struct bin *bin = &series_bins(metric, series)[slot];
    return bin->count ? bin->sum / bin->count : 0;
}

static double reduce_min(const struct metric *metric, const struct series *series, unsigned slot)
{
    return series_extremes(metric, series)[slot].least;
}

static double reduce_max(const struct metric *metric, const struct series *series, unsigned slot)
{
    return series_extremes(metric, series)[slot].greatest;
}

/* The sum over sources of each one's last sample: O(sources), at the close of a period. */
static double reduce_last(const struct metric *metric, const struct series *series, unsigned slot)
{
    double sum = 0;
    bool filled = false;
    const uint32_t *lanes = series_lanes(metric, series);
    if (lanes[2] & 1u << slot)
        return NAN;
    uint32_t id = lanes[0];
    while (id != NONE) {
        const struct lane *lane = pool_at(&metric->lane_pool, id);
        if (lane->filled & 1u << slot) {
            sum += lane->value[slot];
            filled = true;
        }
        id = lane->next;
    }
    return filled ? sum : NAN;
}

const struct reducer reducers[] = {
    {"Sum", reduce_sum, false, false, true, false},
    {"Avg", reduce_avg, false, false, false, true},
    {"Min", reduce_min, true, false, false, false},
    {"Max", reduce_max, true, false, false, false},
    {"Count", reduce_count, false, false, true, false},
    {"Last", reduce_last, false, true, true, false},
};
const unsigned reducer_count = sizeof reducers / sizeof *reducers;

/* ---- no detector: the number itself; 8 bytes a series ----------------------------------------- */

static void plain_step(const struct algorithm *algorithm, void *state, struct result *result)
{
    (void)algorithm;
    memcpy(state, &result->value, sizeof result->value);
    result->flags = RESULT_REPORTED;
}

static void plain_show(const struct algorithm *algorithm, const void *state,
                       struct result *result)
{
    (void)algorithm;
    memcpy(&result->value, state, sizeof result->value);
    result->flags = RESULT_REPORTED;
}

/* ---- EWM(alpha): exponentially weighted mean and deviation; 40 bytes a series ------------------
 * As in Contrail's derived statistics (DSAnomaly:EWM): the deviation of a step is measured after
 * the step was folded in, so |sigma| never passes sqrt((1 - alpha) / alpha). */

struct ewm {
    double mean;
    double variance;
    double value;
    double sigma;
    uint32_t samples;
};

_Static_assert(sizeof(struct ewm) <= DETECTOR_BYTES, "what is saved has room for it");

static unsigned is_quiet(double sigma)
{
    return fabs(sigma) < 0.5;
}

static void ewm_step(const struct algorithm *algorithm, void *state, struct result *result)
{
    struct ewm *ewm = state;
    double alpha = algorithm->alpha, value = result->value, off = value - ewm->mean;
    unsigned was_quiet = is_quiet(ewm->sigma);
    ewm->variance = (1 - alpha) * (ewm->variance + alpha * (off * off));
    ewm->mean = (1 - alpha) * ewm->mean + alpha * value;
    double stddev = sqrt(ewm->variance);
    ewm->sigma = stddev > 0 ? (value - ewm->mean) / stddev : 0;
    ewm->value = value;
    ewm->samples += ewm->samples < UINT32_MAX;
    result->mean = ewm->mean;
    result->stddev = stddev;
    result->sigma = ewm->sigma;
    result->samples = ewm->samples;
    /* Without branches: which way these go is as good as random. */
    unsigned reported = ewm->samples >= algorithm->minimum;
    unsigned quiet = (ewm->samples > algorithm->minimum) & was_quiet & is_quiet(ewm->sigma);
    result->flags = (uint8_t)(reported * RESULT_REPORTED | quiet * RESULT_QUIET);
}

static void ewm_show(const struct algorithm *algorithm, const void *state, struct result *result)
{
    const struct ewm *ewm = state;
    result->value = ewm->value;
    result->mean = ewm->mean;
    result->stddev = sqrt(ewm->variance);
    result->sigma = ewm->sigma;
    result->samples = ewm->samples;
    result->flags = ewm->samples >= algorithm->minimum ? RESULT_REPORTED : 0;
}

const struct detector detectors[] = {
    {"", sizeof(double), true, plain_step, plain_show},
    {"EWM", sizeof(struct ewm), false, ewm_step, ewm_show},
};
const unsigned detector_count = sizeof detectors / sizeof *detectors;

/* ------------------------------------------------------------------------------------------------ */

const struct reducer *reducer_named(const char *name)
{
    for (unsigned row = 0; row < reducer_count; row++)
        if (strcmp(reducers[row].name, name) == 0)
            return &reducers[row];
    return NULL;
}

const struct detector *detector_named(const char *name)
{
    for (unsigned row = 0; row < detector_count; row++)
        if (strcmp(detectors[row].name, name) == 0)
            return &detectors[row];
    return NULL;
}

bool algorithm_same(const struct algorithm *one, const struct algorithm *other)
{
    return strcmp(one->name, other->name) == 0 && one->reducer == other->reducer &&
           one->detector == other->detector && one->alpha == other->alpha &&
           one->timeout == other->timeout;
}

bool metric_same(const struct metric *one, const struct metric *other)
{
    bool same = one->algorithm_count == other->algorithm_count;
    for (unsigned at = 0; same && at < one->algorithm_count; at++)
        same = algorithm_same(&one->algorithms[at], &other->algorithms[at]);
    return same;
}

void metric_layout(struct metric *metric)
{
    uint32_t size = sizeof(struct series);
    bool extremes = false, lanes = false;
    metric->all = (uint16_t)((1u << metric->algorithm_count) - 1);
    metric->staging = 0;
    for (unsigned at = 0; at < metric->algorithm_count; at++) {
        struct algorithm *algorithm = &metric->algorithms[at];
        algorithm->state = size;
        algorithm->minimum = (uint32_t)fmin(floor(1 / algorithm->alpha), UINT32_MAX);
        size += algorithm->detector->size;
        extremes = extremes || algorithm->reducer->needs_extremes;
        lanes = lanes || algorithm->reducer->needs_lanes;
        if (algorithm->detector->has_staging)
            metric->staging |= (uint16_t)(1u << at);
    }
    metric->bins = size;
    size += RING * sizeof(struct bin);
    metric->extremes = extremes ? size : 0;
    size += extremes ? RING * (uint32_t)sizeof(struct extremes) : 0;
    metric->lanes = lanes ? size : 0;
    size += lanes ? 16 : 0;
    pool_init(&metric->pool, size, POOL_SLAB * sizeof(uint32_t));
    pool_init(&metric->lane_pool, (sizeof(struct lane) + 7) & ~(uint32_t)7, 0);
}
