/* series.c: samples into windows, windows closed by the ring and by the clock. */
#include "partition.h"

#include <math.h>
#include <string.h>

enum { CLOCK_SLACK_S = 1, NEVER = UINT32_MAX, ADVANCE_SERIES = 4096 };

static uint32_t now_ms(const struct partition *partition)
{
    return (uint32_t)(partition->clock.steady / 1000 - partition->base);
}

/* The last arrival for the oldest open period or one before it. */
static uint32_t last_arrival(const struct metric *metric, const struct series *series)
{
    const struct bin *bin = &series_bins(metric, series)[series->next % RING];
    return bin->count && bin->arrival > series->carry ? bin->arrival : series->carry;
}

/* A time moved by an offset, not below 0. */
static uint64_t after(uint64_t time, int64_t offset)
{
    return offset < 0 && time < (uint64_t)-offset ? 0 : time + (uint64_t)offset;
}

/* The millisecond of the wall clock from which on the oldest open period may be closed. It ends by
 * the wall clock; how long nothing came, the steady clock tells. */
static uint64_t closes_at(const struct partition *partition, const struct metric *metric,
                          const struct series *series)
{
    uint64_t ended = ((uint64_t)series->next + 1) * PERIOD_MS + partition->lateness;
    uint64_t silent = series_has_open(series)
                          ? last_arrival(metric, series) + partition->lateness
                          : (uint64_t)series->arrival + IDLE_MS;
    silent += partition->base;
    uint64_t heard_out = after(silent, partition->offset);
    return ended > heard_out ? ended : heard_out;
}

/* A lower bound in seconds, early by the slack that the clock may go back unnoticed. */
static void set_due(const struct metric *metric, uint32_t id, uint64_t closes_at_ms)
{
    uint64_t due = closes_at_ms / 1000;
    due = due > CLOCK_SLACK_S ? due - CLOCK_SLACK_S : 0;
    *series_due(metric, id) = due < NEVER ? (uint32_t)due : NEVER - 1;
}

static void set_all_due(struct partition *partition)
{
    for (uint32_t number = 0; number < partition->metric_count; number++) {
        struct metric *metric = &partition->metrics[number];
        for (uint32_t id = 0; id < pool_ids(&metric->pool); id++)
            if (series_at(metric, id)->live)
                *series_due(metric, id) = 0;
    }
}

static uint32_t shifted(uint32_t arrival, int64_t by)
{
    int64_t moved = (int64_t)arrival + by;
    return moved < 0 ? 0 : moved > UINT32_MAX ? UINT32_MAX : (uint32_t)moved;
}

/* Count arrivals from another moment; what lies too far back is simply long ago. */
static void rebase(struct partition *partition, uint64_t base)
{
    int64_t by = (int64_t)(partition->base - base);
    for (uint32_t number = 0; number < partition->metric_count; number++) {
        struct metric *metric = &partition->metrics[number];
        for (uint32_t id = 0; id < pool_ids(&metric->pool); id++) {
            struct series *series = series_at(metric, id);
            if (!series->live)
                continue;
            series->carry = shifted(series->carry, by);
            series->arrival = shifted(series->arrival, by);
            for (unsigned slot = 0; slot < RING; slot++) {
                struct bin *bin = &series_bins(metric, series)[slot];
                bin->arrival = shifted(bin->arrival, by);
            }
        }
    }
    partition->base = base;
}

void partition_steady(struct partition *partition, uint64_t steady)
{
    uint64_t milliseconds = steady / 1000;
    bool back = steady + CLOCK_SLACK_S * 1000000u < partition->latest;
    if (milliseconds < partition->base || milliseconds - partition->base >= UINT32_MAX)
        rebase(partition, milliseconds > UINT32_MAX / 2 ? milliseconds - UINT32_MAX / 2 : 0);
    if (back)
        set_all_due(partition);
    if (back || steady > partition->latest)
        partition->latest = steady;
    partition->clock.steady = steady;
}

void partition_clock(struct partition *partition, struct moment now)
{
    partition_steady(partition, now.steady);
    partition->clock.wall = now.wall;
    partition->offset = (int64_t)(now.wall / 1000) - (int64_t)(now.steady / 1000);
    int64_t moved = partition->offset - partition->due_offset;
    /* Half of the slack either way; a clock that is only slewed takes long to get there. */
    if (moved * 2 > CLOCK_SLACK_S * 1000 || moved * 2 < -CLOCK_SLACK_S * 1000) {
        partition->due_offset = partition->offset;
        set_all_due(partition);
    }
}

void partition_lateness(struct partition *partition, uint64_t lateness)
{
    partition->lateness = lateness;
    set_all_due(partition);
}

/* ---- lanes -------------------------------------------------------------------------------------- */

uint32_t series_lane(struct partition *partition, uint32_t number, uint32_t id, uint32_t source)
{
    struct metric *metric = &partition->metrics[number];
    uint32_t *first = series_lanes(metric, series_at(metric, id));
    /* first[1] counts lanes without a slot: only they are worth looking for. */
    for (uint32_t at = first[1] ? *first : NONE; at != NONE;) {
        struct lane *lane = pool_at(&metric->lane_pool, at);
        if (lane->source == source && !lane->attached) {
            lane->attached = true;
            first[1]--;
            return at;
        }
        at = lane->next;
    }
    uint32_t made = pool_take(&metric->lane_pool, partition->memory);
    if (made == NONE)
        return NONE;
    struct lane *lane = pool_at(&metric->lane_pool, made);
    *lane = (struct lane){.next = *first, .series = id, .source = source, .attached = true};
    names_at(&partition->sources, source)->refs++;
    *first = made;
    return made;
}

/* A period is closed: its samples go, and with them the lanes that nobody fills any more. */
static void clear_lanes(struct partition *partition, struct metric *metric, struct series *series,
                        uint8_t slots)
{
    uint32_t *first = series_lanes(metric, series), *link = first;
    first[2] &= ~(uint32_t)slots;
    while (*link != NONE) {
        uint32_t id = *link;
        struct lane *lane = pool_at(&metric->lane_pool, id);
        lane->filled &= (uint8_t)~slots;
        if (lane->filled || lane->attached) {
            link = &lane->next;
            continue;
        }
        *link = lane->next;
        first[1]--;
        names_drop(&partition->sources, lane->source);
        pool_give(&metric->lane_pool, id);
    }
}

static void fill_lane(struct lane *lane, unsigned slot, uint32_t offset, double value)
{
    bool filled = lane->filled & 1u << slot;
    if (filled && offset < lane->offset[slot])
        return; /* an earlier sample that came later */
    lane->filled |= (uint8_t)(1u << slot);
    lane->offset[slot] = offset;
    lane->value[slot] = value;
}

/* ---- life of a series ---------------------------------------------------------------------------- */

uint32_t series_of(struct partition *partition, struct key *key, uint32_t number)
{
    for (uint32_t id = key->first_series, of = key->first_metric; id != NONE;) {
        if (of == number)
            return id;
        const struct series *series = series_at(&partition->metrics[of], id);
        id = series->sibling;
        of = series->sibling_metric;
    }
    struct metric *metric = &partition->metrics[number];
    uint32_t id = pool_take(&metric->pool, partition->memory);
    if (id == NONE)
        return NONE;
    struct series *series = series_at(metric, id);
    series->key = key->id;
    series->sibling = key->first_series;
    series->sibling_metric = key->first_metric;
    key->first_series = id;
    key->first_metric = (uint16_t)number;
    if (metric->lanes)
        *series_lanes(metric, series) = NONE;
    *series_due(metric, id) = NEVER;
    atomic_fetch_add_explicit(&partition->limits->held_series, 1, memory_order_relaxed);
    return id;
}

static void unlink_series(struct partition *partition, uint32_t number, uint32_t id)
{
    struct series *gone = series_at(&partition->metrics[number], id);
    struct key *key = partition->keys.entries[gone->key];
    uint32_t *link = &key->first_series;
    uint16_t *of = &key->first_metric;
    while (*link != id || *of != number) {
        struct series *series = series_at(&partition->metrics[*of], *link);
        link = &series->sibling;
        of = &series->sibling_metric;
    }
    *link = gone->sibling;
    *of = gone->sibling_metric;
}

void series_free(struct partition *partition, uint32_t number, uint32_t id)
{
    struct metric *metric = &partition->metrics[number];
    struct series *series = series_at(metric, id);
    unlink_series(partition, number, id);
    if (metric->lanes) {
        for (uint32_t at = *series_lanes(metric, series); at != NONE;) {
            struct lane *lane = pool_at(&metric->lane_pool, at);
            uint32_t next = lane->next;
            names_drop(&partition->sources, lane->source);
            pool_give(&metric->lane_pool, at);
            at = next;
        }
    }
    *series_due(metric, id) = NEVER;
    pool_give(&metric->pool, id);
    atomic_fetch_sub_explicit(&partition->limits->held_series, 1, memory_order_relaxed);
}

/* ---- closing -------------------------------------------------------------------------------------- */

static struct result *begin_result(struct partition *partition, uint32_t number,
                                   const struct series *series, unsigned at)
{
    struct result *result = partition_next_result(partition);
    *result = (struct result){.key = series->key,
                              .period = series->next,
                              .metric = (uint16_t)number,
                              .algorithm = (uint8_t)at};
    return result;
}

static void note_proxy(struct partition *partition, uint32_t number, struct series *series,
                       unsigned at)
{
    uint16_t algorithm = (uint16_t)(1u << at);
    partition_note_series(partition, number, series, algorithm,
                          algorithm & partition->metrics[number].observed);
}

static void end_proxy(struct partition *partition, uint32_t number, struct series *series,
                      unsigned at)
{
    const struct algorithm *algorithm = &partition->metrics[number].algorithms[at];
    memset(series_state(algorithm, series), 0, algorithm->detector->size);
    series->live &= (uint16_t)~(1u << at);
    series->started &= (uint16_t)~(1u << at);
    partition->counters.deleted++;
    note_proxy(partition, number, series, at);
    begin_result(partition, number, series, at)->flags = RESULT_DELETED;
}

/* Whether a step is news to who observes the proxy UVE; quiet steps may be, too. */
static bool is_observed(const struct metric *metric, unsigned at, const struct result *before,
                        const struct result *now)
{
    const struct observed_name *value = metric->observed_value[at];
    const struct observed_name *sigma = metric->observed_sigma[at];
    if (!((before->flags & now->flags) & RESULT_REPORTED))
        return (before->flags | now->flags) & RESULT_REPORTED;
    return (value && observed_crosses(value, before->value, now->value)) ||
           (sigma && observed_crosses(sigma, before->sigma, now->sigma));
}

static struct result *step(struct partition *partition, uint32_t number, struct series *series,
                           const struct algorithm *algorithm, unsigned at, double value)
{
    struct result *result = begin_result(partition, number, series, at);
    result->value = value;
    algorithm->detector->step(algorithm, series_state(algorithm, series), result);
    return result;
}

/* A step of which somebody wants to hear: what there was before is looked at, too. */
static void step_observed(struct partition *partition, uint32_t number, struct series *series,
                          const struct algorithm *algorithm, unsigned at, double value)
{
    struct result before = {0};
    if (series->started & 1u << at)
        algorithm->detector->show(algorithm, series_state(algorithm, series), &before);
    const struct result *now = step(partition, number, series, algorithm, at, value);
    bool observed = is_observed(&partition->metrics[number], at, &before, now);
    unsigned announced = now->flags == RESULT_REPORTED;
    if (observed || announced)
        partition_note_series(partition, number, series, (uint16_t)(announced << at), observed);
}

static inline void step_proxy(struct partition *partition, uint32_t number,
                              struct series *series, const struct algorithm *algorithm,
                              unsigned at, double value)
{
    if (partition->watching & TO_OBSERVED && partition->metrics[number].observed & 1u << at) {
        step_observed(partition, number, series, algorithm, at, value);
    } else {
        const struct result *now = step(partition, number, series, algorithm, at, value);
        if (partition->watching && now->flags == RESULT_REPORTED)
            note_proxy(partition, number, series, at);
    }
    series->started |= (uint16_t)(1u << at);
}

/* A period with samples: each algorithm takes its number, those with one reducer the same. */
static inline void close_sampled(struct partition *partition, const struct metric *metric,
                                 uint32_t number, struct series *series)
{
    const struct algorithm *algorithm = metric->algorithms;
    const struct reducer *reducer = NULL;
    double value = 0;
    for (unsigned at = 0; at < metric->algorithm_count; at++, algorithm++) {
        if (!(series->live & 1u << at))
            continue;
        if (algorithm->reducer != reducer) {
            reducer = algorithm->reducer;
            value = reducer->reduce(metric, series, series->next % RING);
        }
        if (isnan(value)) { /* it was configured during this period, and begins with the next */
            if (!(series->started & 1u << at)) {
                series->live &= (uint16_t)~(1u << at);
                note_proxy(partition, number, series, at);
            }
            continue;
        }
        step_proxy(partition, number, series, algorithm, at, value);
    }
}

/* A period without: it counts for those that had one with samples before. */
static void close_empty(struct partition *partition, uint32_t number, struct series *series)
{
    const struct metric *metric = &partition->metrics[number];
    series->empty += series->empty < UINT16_MAX;
    for (unsigned at = 0; at < metric->algorithm_count; at++) {
        const struct algorithm *algorithm = &metric->algorithms[at];
        if (!(series->live & series->started & 1u << at))
            continue;
        if (algorithm->timeout && series->empty >= algorithm->timeout)
            end_proxy(partition, number, series, at);
        else if (algorithm->reducer->steps_when_empty)
            step_proxy(partition, number, series, algorithm, at, 0);
    }
}

/* Close the oldest open period of a series. */
static inline void close_period(struct partition *partition, struct metric *metric,
                                uint32_t number, struct series *series)
{
    unsigned slot = series->next % RING;
    struct bin *bin = &series_bins(metric, series)[slot];
    series->carry = last_arrival(metric, series);
    if (bin->count > 0) {
        partition->counters.closed++;
        series->empty = 0;
        close_sampled(partition, metric, number, series);
        *bin = (struct bin){0};
        if (metric->lanes)
            clear_lanes(partition, metric, series, (uint8_t)(1u << slot));
    } else if (series->started) {
        partition->counters.closed++;
        close_empty(partition, number, series);
    }
    series->next++;
    /* What was ended while later periods hold samples begins anew with them. */
    if (series->live != metric->all && series->newest >= series->next)
        series->live = metric->all;
}

static void close_until(struct partition *partition, uint32_t number, struct series *series,
                        uint32_t period)
{
    struct metric *metric = &partition->metrics[number];
    while (series->live && series->next <= period)
        close_period(partition, metric, number, series);
}

static void awake(struct partition *partition, struct series *series, uint32_t period)
{
    uint32_t oldest = period >= RING ? period - (RING - 1) : 0;
    series->next = series->next > oldest ? series->next : oldest;
    series->newest = period;
    series->carry = now_ms(partition);
    series->real = false;
}

static void add_to_bin(const struct metric *metric, struct series *series, unsigned slot,
                       double value, uint32_t arrival)
{
    struct bin *bin = &series_bins(metric, series)[slot];
    if (metric->extremes) {
        struct extremes *extremes = &series_extremes(metric, series)[slot];
        if (bin->count == 0 || value < extremes->least)
            extremes->least = value;
        if (bin->count == 0 || value > extremes->greatest)
            extremes->greatest = value;
    }
    bin->sum += value;
    bin->count += bin->count < UINT32_MAX;
    bin->arrival = arrival;
}

void series_add(struct partition *partition, uint32_t number, uint32_t id, struct lane *lane,
                double value, bool real, uint32_t period, uint32_t offset)
{
    struct metric *metric = &partition->metrics[number];
    struct series *series = series_at(metric, id);
    if (period < series->next) {
        partition->counters.late++;
        return;
    }
    if (period - series->next >= RING && series->live)
        close_until(partition, number, series, period - RING);
    bool had_open = series_has_open(series);
    if (!series->live)
        awake(partition, series, period);
    if (series->live != metric->all) {
        uint16_t begun = (uint16_t)(metric->all & ~series->live);
        partition_note_series(partition, number, series, begun, begun & metric->observed);
        series->live = metric->all;
    }
    uint32_t arrival = now_ms(partition);
    series->newest = period > series->newest ? period : series->newest;
    series->arrival = arrival;
    series->real |= real;
    add_to_bin(metric, series, period % RING, value, arrival);
    if (lane != NULL)
        fill_lane(lane, period % RING, offset, value);
    if (!had_open)
        set_due(metric, id, closes_at(partition, metric, series));
    if (partition->watching && metric->staging)
        partition_note_series(partition, number, series, metric->staging,
                              metric->observed_staging);
    partition->counters.samples++;
}

/* ---- the clock ------------------------------------------------------------------------------------ */

static inline void advance_series(struct partition *partition, struct metric *metric,
                                  uint32_t number, uint32_t id, struct series *series)
{
    uint64_t now = partition->clock.wall / 1000;
    while (series->live) {
        uint64_t then = closes_at(partition, metric, series);
        if (then > now) {
            set_due(metric, id, then);
            return;
        }
        close_period(partition, metric, number, series);
    }
    *series_due(metric, id) = NEVER;
    struct key *key = partition->keys.entries[series->key];
    if (key->record_count == 0)
        partition_release_key(partition, key);
}

/* Ask for the memory of the series some places on: the header first, then the bin it points to. */
static inline void fetch_ahead(const struct metric *metric, const uint8_t *cell, uint32_t left)
{
    enum { HEADER_AHEAD = 8, BIN_AHEAD = 4 };
    uint32_t size = metric->pool.cell;
    if (left <= HEADER_AHEAD)
        return;
    __builtin_prefetch(cell + HEADER_AHEAD * size, 1);
    __builtin_prefetch(cell + HEADER_AHEAD * size + metric->bins - 1, 1);
    const struct series *series = (const struct series *)(const void *)(cell + BIN_AHEAD * size);
    __builtin_prefetch(&series_bins(metric, series)[series->next % RING], 1);
}

static void advance_slab(struct partition *partition, uint32_t number, uint32_t slab)
{
    struct metric *metric = &partition->metrics[number];
    uint64_t seconds = partition->clock.wall / 1000000;
    uint32_t now = seconds < NEVER ? (uint32_t)seconds : NEVER - 1;
    uint32_t first = slab * POOL_SLAB, *due = series_due(metric, first);
    struct series *series = series_at(metric, first);
    for (uint32_t at = 0; at < POOL_SLAB; at++) {
        if (due[at] <= now) {
            fetch_ahead(metric, (const uint8_t *)series, POOL_SLAB - at);
            if (series->live)
                advance_series(partition, metric, number, first + at, series);
            else
                due[at] = NEVER; /* a cell that was not in use yet */
        }
        series = (struct series *)(void *)((uint8_t *)series + metric->pool.cell);
    }
}

uint64_t partition_advance(struct partition *partition, uint64_t *cursor)
{
    uint64_t closed = partition->counters.closed;
    uint32_t number = (uint32_t)(*cursor >> 32), slab = (uint32_t)*cursor, done = 0;
    while (number < partition->metric_count && done < ADVANCE_SERIES / POOL_SLAB) {
        if (slab >= partition->metrics[number].pool.slab_count) {
            number++;
            slab = 0;
            continue;
        }
        advance_slab(partition, number, slab++);
        done++;
    }
    *cursor = number < partition->metric_count ? (uint64_t)number << 32 | slab : UINT64_MAX;
    return partition->counters.closed - closed;
}
