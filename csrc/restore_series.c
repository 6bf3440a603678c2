/* restore_series.c: metrics and series out of a snapshot. What a series can't be it is not made:
 * the code that runs on it later trusts its masks, its periods and its numbers. */
#include "snapshot.h"

#include <math.h>

enum { METRICS = 4096, TIMEOUT = UINT16_MAX };
/* Of a sample, of the sum of 2^32, and of what is made of such sums: so all steps stay finite. */
static const double SAMPLE_LIMIT = 1e100, SUM_LIMIT = 1e110, STATE_LIMIT = 1e111;

/* ---- metrics ------------------------------------------------------------------------------------------ */

/* Copy a name that ends with a zero; false where it is none. */
static bool copy_name(struct restoring *restoring, char *name, size_t room)
{
    struct text text;
    if (!restore_text(restoring, &text))
        return false;
    if (text.length == 0 || text.length >= room || memchr(text.bytes, 0, text.length) != NULL ||
        !msgpack_is_utf8((const uint8_t *)text.bytes, text.length))
        return restore_broken(restoring, "a metric, or an algorithm, has no good name");
    memcpy(name, text.bytes, text.length);
    name[text.length] = 0;
    return true;
}

/* The name of a row of the menu, which may be empty. */
static bool menu_name(struct restoring *restoring, char *name, size_t room)
{
    struct text text;
    if (!restore_text(restoring, &text))
        return false;
    if (text.length >= room || (text.length > 0 && memchr(text.bytes, 0, text.length) != NULL))
        return restore_broken(restoring, "a reducer, or a detector, is not known");
    memcpy(name, text.bytes, text.length);
    name[text.length] = 0;
    return true;
}

static bool restore_algorithm(struct restoring *restoring, struct algorithm *algorithm)
{
    char reducer[ALGORITHM_NAME], detector[ALGORITHM_NAME];
    uint64_t timeout;
    if (!restore_array_of(restoring, ALGORITHM_FIELDS) ||
        !copy_name(restoring, algorithm->name, sizeof algorithm->name) ||
        !restore_natural(restoring, TIMEOUT, &timeout) ||
        !menu_name(restoring, reducer, sizeof reducer) ||
        !menu_name(restoring, detector, sizeof detector) ||
        !restore_number(restoring, &algorithm->alpha))
        return false;
    algorithm->timeout = (uint32_t)timeout;
    algorithm->reducer = reducer_named(reducer);
    algorithm->detector = detector_named(detector);
    if (algorithm->reducer == NULL || algorithm->detector == NULL)
        return restore_broken(restoring, "a reducer, or a detector, is not known");
    return (algorithm->alpha > 0 && algorithm->alpha <= 1) ||
           restore_broken(restoring, "an alpha is not above 0 and at most 1");
}

static bool restore_metric(struct restoring *restoring, struct metric *metric)
{
    uint32_t fields;
    if (!restore_array(restoring, &fields))
        return false;
    if (fields < 2 || fields > 1 + ALGORITHMS)
        return restore_broken(restoring, "a metric has no algorithms, or too many");
    *metric = (struct metric){.algorithm_count = (uint16_t)(fields - 1)};
    if (!copy_name(restoring, metric->name, sizeof metric->name))
        return false;
    metric->name_length = (uint16_t)strlen(metric->name);
    for (unsigned at = 0; at < metric->algorithm_count; at++)
        if (!restore_algorithm(restoring, &metric->algorithms[at]))
            return false;
    metric_layout(metric);
    return true;
}

/* Those metrics of the body that have a number still; body->metrics gets their places for now. */
static bool read_metrics(struct body *body, struct metric *metrics, uint32_t *count)
{
    struct restoring *restoring = &body->restoring;
    for (uint32_t number = 0; number < body->metric_count; number++) {
        body->metrics[number] = NONE;
        if (restoring->reader.at < restoring->reader.end && *restoring->reader.at == 0xc0) {
            restoring->reader.at++;
            continue;
        }
        struct metric *metric = &metrics[*count];
        if (!restore_metric(restoring, metric))
            return false;
        for (uint32_t at = 0; at < *count; at++)
            if (strcmp(metrics[at].name, metric->name) == 0)
                return restore_broken(restoring, "a metric is there twice");
        body->metrics[number] = (*count)++;
    }
    return true;
}

static bool has_metrics(const struct partition *partition, const struct metric *metrics,
                        uint32_t count)
{
    uint32_t named = 0;
    for (uint32_t number = 0; number < partition->metric_count; number++)
        named += partition->metrics[number].name_length > 0;
    bool same = named == count;
    for (uint32_t at = 0; same && at < count; at++) {
        int32_t number = partition_metric(partition, metrics[at].name, metrics[at].name_length);
        same = number >= 0 && metric_same(&partition->metrics[number], &metrics[at]);
    }
    return same;
}

/* Configuration may have changed between two partitions' saving; then it does so again here. */
static bool take_metrics(struct body *body, const struct metric *metrics, uint32_t count)
{
    struct engine *engine = body->engine;
    for (uint32_t at = 0; at < engine->partition_count; at++) {
        struct partition *partition = &engine->partitions[at];
        pthread_mutex_lock(&partition->lock);
        int status = has_metrics(partition, metrics, count)
                         ? 0
                         : partition_configure(partition, metrics, count);
        pthread_mutex_unlock(&partition->lock);
        if (status)
            return restore_no_memory(&body->restoring);
    }
    for (uint32_t number = 0; number < body->metric_count; number++) {
        uint32_t place = body->metrics[number];
        if (place != NONE) /* numbers are the same in all partitions: all went the same way */
            body->metrics[number] = (uint32_t)partition_metric(
                &engine->partitions[0], metrics[place].name, metrics[place].name_length);
    }
    return true;
}

bool restore_metrics(struct body *body)
{
    struct memory *memory = &body->engine->memory;
    uint32_t count, named = 0;
    if (!restore_array(&body->restoring, &count))
        return false;
    if (count > METRICS)
        return restore_broken(&body->restoring, "there are too many metrics");
    if (count == 0)
        return take_metrics(body, NULL, 0);
    struct metric *metrics = memory_get(memory, count * sizeof *metrics);
    body->metrics = metrics ? memory_get(memory, count * sizeof *body->metrics) : NULL;
    body->metric_count = body->metrics ? count : 0;
    bool good = body->metrics != NULL || restore_no_memory(&body->restoring);
    good = good && read_metrics(body, metrics, &named) && take_metrics(body, metrics, named);
    memory_free(memory, metrics, count * sizeof *metrics);
    return good;
}

/* ---- a series ------------------------------------------------------------------------------------------ */

/* A period, told relative to that of the moment it was saved. */
static bool restore_period(struct body *body, uint32_t *period)
{
    int64_t behind, limit = (int64_t)1 << 40;
    if (!restore_integer(&body->restoring, &behind))
        return false;
    int64_t found = behind > limit || behind < -limit ? -1 : (int64_t)body->period + behind;
    *period = (uint32_t)found;
    return (found >= 0 && found <= UINT32_MAX - RING) ||
           restore_broken(&body->restoring, "a period is beyond all time");
}

/* When something arrived, told as how long ago that was; what is too long ago is so for ever. */
static bool restore_arrival(struct body *body, uint32_t *arrival)
{
    uint64_t age, now = body->now.steady / 1000 - body->target->base;
    if (!restore_natural(&body->restoring, UINT64_MAX, &age))
        return false;
    *arrival = age < now && body->passed < now - age ? (uint32_t)(now - age - body->passed) : 0;
    return true;
}

/* Masks and counters of a series that is awake. */
static bool restore_header(struct body *body, const struct metric *metric, struct series *series)
{
    struct restoring *restoring = &body->restoring;
    uint64_t open, live, started, empty, real;
    if (!restore_natural(restoring, RING, &open) || !restore_arrival(body, &series->carry) ||
        !restore_arrival(body, &series->arrival) ||
        !restore_natural(restoring, metric->all, &live) ||
        !restore_natural(restoring, metric->all, &started) ||
        !restore_natural(restoring, UINT16_MAX, &empty) || !restore_natural(restoring, 1, &real))
        return false;
    if (live == 0 || started & ~live)
        return restore_broken(restoring, "a series is awake without an algorithm");
    if (open == 0 ? series->next == 0 : live != metric->all)
        return restore_broken(restoring, "what is open and what is awake don't go together");
    series->newest = series->next + (uint32_t)open - 1;
    series->live = (uint16_t)live;
    series->started = (uint16_t)started;
    series->empty = (uint16_t)empty;
    series->real = (uint16_t)real;
    return true;
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
    for (size_t at = 0; at < length; at++)
        if (bytes[at] != 0)
            return false;
    return true;
}

/* The state of an algorithm is what it shows; of one that has not begun, nothing. */
static bool is_state(const struct algorithm *algorithm, const struct series *series, bool started)
{
    const uint8_t *state = series_state(algorithm, series);
    struct result shown = {0};
    if (!started)
        return is_zero(state, algorithm->detector->size);
    algorithm->detector->show(algorithm, state, &shown);
    return fabs(shown.value) <= STATE_LIMIT && fabs(shown.mean) <= STATE_LIMIT &&
           shown.stddev <= STATE_LIMIT && isfinite(shown.sigma);
}

static bool restore_states(struct body *body, const struct metric *metric, struct series *series)
{
    uint32_t size = series_states_size(metric);
    const uint8_t *states;
    if (!restore_bin(&body->restoring, size, &states))
        return false;
    memcpy(series_states(series), states, size);
    for (unsigned at = 0; at < metric->algorithm_count; at++)
        if (!is_state(&metric->algorithms[at], series, series->started >> at & 1))
            return restore_broken(&body->restoring, "the state of an algorithm is none");
    return true;
}

/* Least and greatest are both not known where they were not kept from a period's first sample on. */
static bool restore_extremes(struct body *body, struct extremes *extremes)
{
    if (!restore_number(&body->restoring, &extremes->least) ||
        !restore_number(&body->restoring, &extremes->greatest))
        return false;
    bool unkept = isnan(extremes->least) && isnan(extremes->greatest);
    return unkept ||
           (extremes->least >= -SAMPLE_LIMIT && extremes->greatest <= SAMPLE_LIMIT &&
            extremes->least <= extremes->greatest) ||
           restore_broken(&body->restoring, "the extremes of a period are none");
}

static bool restore_bin_of(struct body *body, const struct metric *metric, struct series *series)
{
    struct restoring *restoring = &body->restoring;
    uint64_t period, count;
    double sum;
    uint32_t arrival;
    if (!restore_natural(restoring, series->newest - series->next, &period) ||
        !restore_number(restoring, &sum) || !restore_natural(restoring, UINT32_MAX, &count) ||
        !restore_arrival(body, &arrival))
        return false;
    unsigned slot = (series->next + (uint32_t)period) % RING;
    struct bin *bin = &series_bins(metric, series)[slot];
    if (bin->count > 0 || count == 0 || !(fabs(sum) <= SUM_LIMIT))
        return restore_broken(restoring, "the samples of a period are none, or there twice");
    *bin = (struct bin){sum, (uint32_t)count, arrival};
    return !metric->extremes || restore_extremes(body, &series_extremes(metric, series)[slot]);
}

static bool restore_bins(struct body *body, const struct metric *metric, struct series *series)
{
    uint32_t fields = BIN_FIELDS + (metric->extremes ? BIN_EXTREMES : 0), count;
    if (!restore_array(&body->restoring, &count))
        return false;
    bool fits = count % fields == 0 && (count == 0 || series_has_open(series));
    bool good = fits || restore_broken(&body->restoring, "the samples of a period are cut short");
    for (; good && count > 0; count -= fields)
        good = restore_bin_of(body, metric, series);
    /* That it is open says that its newest period has samples. */
    if (good && series_has_open(series) &&
        series_bins(metric, series)[series->newest % RING].count == 0)
        return restore_broken(&body->restoring, "a period is open without samples");
    return good;
}

/* ---- lanes --------------------------------------------------------------------------------------------- */

/* Bits of periods behind `next` as bits of slots. */
static uint8_t turned(uint64_t periods, const struct series *series)
{
    unsigned by = series->next % RING;
    return (uint8_t)(periods << by | periods >> (RING - by));
}

/* A bit for each open period that has samples. */
static uint32_t filled_bins(const struct metric *metric, const struct series *series)
{
    uint32_t filled = 0;
    for (uint32_t slot = 0; slot < RING; slot++)
        filled |= (uint32_t)(series_bins(metric, series)[slot].count > 0) << slot;
    return filled;
}

/* The partition's id of a source's name, which a lane keeps alive; NONE (no memory). */
static uint32_t lane_source(struct partition *partition, const struct restored_name *source)
{
    struct names *names = &partition->sources;
    uint32_t id = names_find(names, source->hash, source->text.bytes, source->text.length);
    if (id == NONE)
        id = names_add(names, partition->memory, source->hash, source->text.bytes,
                       source->text.length);
    if (id != NONE)
        names_at(names, id)->refs++;
    return id;
}

static bool fill_lane(struct body *body, const struct series *series, struct lane *lane,
                      uint64_t periods)
{
    lane->filled = turned(periods, series);
    for (uint32_t period = 0; period < RING; period++) {
        unsigned slot = (series->next + period) % RING;
        uint64_t offset;
        if (!(periods >> period & 1))
            continue;
        if (!restore_natural(&body->restoring, PERIOD_US - 1, &offset) ||
            !restore_number(&body->restoring, &lane->value[slot]))
            return false;
        lane->offset[slot] = (uint32_t)offset;
        if (!(fabs(lane->value[slot]) <= SAMPLE_LIMIT))
            return restore_broken(&body->restoring, "the sample of a source is none");
    }
    return true;
}

/* A lane that no slot of a record points to: the next sample of its source finds it. */
static bool restore_lane(struct body *body, struct metric *metric, uint32_t id, uint32_t filled,
                         uint32_t *made)
{
    struct restoring *restoring = &body->restoring;
    const struct series *series = series_at(metric, id);
    const struct restored_name *source;
    uint32_t fields;
    uint64_t periods;
    if (!restore_array(restoring, &fields) || !restore_source_of(body, &source) ||
        !restore_natural(restoring, UINT8_MAX, &periods))
        return false;
    if (periods == 0 || fields != 2 + 2 * (uint32_t)__builtin_popcountll(periods) ||
        turned(periods, series) & ~filled)
        return restore_broken(restoring, "the samples of a source are none, or too many");
    *made = pool_take(&metric->lane_pool, body->target->memory);
    if (*made == NONE)
        return restore_no_memory(restoring);
    struct lane *lane = pool_at(&metric->lane_pool, *made);
    *lane = (struct lane){.next = NONE, .series = id, .source = lane_source(body->target, source)};
    if (lane->source == NONE)
        return restore_no_memory(restoring);
    return fill_lane(body, series, lane, periods);
}

/* In their order: what they add up to must not differ in its last bit. */
static bool restore_lanes(struct body *body, struct metric *metric, uint32_t id)
{
    struct series *series = series_at(metric, id);
    uint32_t *lanes = series_lanes(metric, series), *link = &lanes[0], count;
    uint32_t filled = filled_bins(metric, series);
    uint64_t unkept;
    if (!restore_natural(&body->restoring, UINT8_MAX, &unkept) ||
        !restore_array(&body->restoring, &count))
        return false;
    lanes[2] = turned(unkept, series);
    if (lanes[2] & ~filled)
        return restore_broken(&body->restoring, "samples are missing that were not kept");
    for (; count > 0; count--) {
        uint32_t made = NONE;
        if (!restore_lane(body, metric, id, filled, &made))
            return false;
        *link = made;
        link = &((struct lane *)pool_at(&metric->lane_pool, made))->next;
        lanes[1]++;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------- */

/* A new series of a key; its metric, and its id, or NONE. */
static uint32_t make_series(struct body *body, struct key *key, struct metric **metric)
{
    struct restoring *restoring = &body->restoring;
    uint64_t number;
    if (!restore_natural(restoring, UINT16_MAX, &number))
        return NONE;
    if (number >= body->metric_count || body->metrics[number] == NONE) {
        restore_broken(restoring, "a metric is missing");
        return NONE;
    }
    *metric = &body->target->metrics[body->metrics[number]];
    uint32_t held = (*metric)->pool.live;
    uint32_t id = series_of(body->target, key, body->metrics[number]);
    if (id == NONE)
        restore_no_memory(restoring);
    else if ((*metric)->pool.live == held)
        restore_broken(restoring, "a series is there twice");
    return restoring->status == RESTORE_OK ? id : NONE;
}

static bool restore_one(struct body *body, struct key *key)
{
    struct restoring *restoring = &body->restoring;
    struct metric *metric = NULL;
    uint32_t fields;
    if (!restore_array(restoring, &fields))
        return false;
    uint32_t id = make_series(body, key, &metric);
    if (id == NONE)
        return false;
    struct series *series = series_at(metric, id);
    if (fields == ASLEEP_FIELDS)
        return restore_period(body, &series->next);
    if (fields != (uint32_t)(metric->lanes ? LANED_FIELDS : SERIES_FIELDS))
        return restore_broken(restoring, "a series is of another length");
    *series_due(metric, id) = 0; /* the clock looks when that is */
    return restore_period(body, &series->next) && restore_header(body, metric, series) &&
           restore_states(body, metric, series) && restore_bins(body, metric, series) &&
           (!metric->lanes || restore_lanes(body, metric, id));
}

/* Each new series of a key stands before the others; let them stand as they came. */
static void turn_round(struct partition *partition, struct key *key)
{
    uint32_t before = NONE, id = key->first_series;
    uint16_t before_metric = 0, of = key->first_metric;
    while (id != NONE) {
        struct series *series = series_at(&partition->metrics[of], id);
        uint32_t next = series->sibling;
        uint16_t next_metric = series->sibling_metric;
        series->sibling = before;
        series->sibling_metric = before_metric;
        before = id;
        before_metric = of;
        id = next;
        of = next_metric;
    }
    key->first_series = before;
    key->first_metric = before_metric;
}

bool restore_series(struct body *body, struct key *key)
{
    uint32_t count;
    bool good = restore_array(&body->restoring, &count);
    for (; good && count > 0; count--)
        good = restore_one(body, key);
    if (good)
        turn_round(body->target, key);
    return good;
}
