/* configure.c: a partition's beginning and end, and its metrics, which may change on the way. */
#include "partition.h"

#include <math.h>
#include <string.h>

int partition_init(struct partition *partition, struct memory *memory, struct limits *limits,
                   uint64_t seed)
{
    *partition = (struct partition){.memory = memory, .limits = limits, .rounds = {1, 1}};
    if (pthread_mutex_init(&partition->lock, NULL))
        return -1;
    keys_init(&partition->keys);
    names_init(&partition->structs, seed);
    names_init(&partition->columns, seed);
    names_init(&partition->sources, seed);
    names_init(&partition->tables, seed);
    pool_init(&partition->records, (sizeof(struct record) + 7) & ~(uint32_t)7, 0);
    return 0;
}

static void free_metrics(struct memory *memory, struct metric *metrics, uint32_t count,
                         size_t capacity)
{
    for (uint32_t number = 0; number < count; number++) {
        pool_free(&metrics[number].pool, memory);
        pool_free(&metrics[number].lane_pool, memory);
    }
    memory_free(memory, metrics, capacity * sizeof *metrics);
}

static void free_values(struct partition *partition)
{
    for (uint32_t id = 0; id < partition->keys.count; id++) {
        const struct key *key = partition->keys.entries[id];
        for (uint32_t at = key && !key->gone ? key->first_record : NONE; at != NONE;) {
            struct record *record = pool_at(&partition->records, at);
            partition_free_slots(partition, record);
            at = record->next;
        }
    }
}

void partition_free(struct partition *partition)
{
    struct memory *memory = partition->memory;
    free_values(partition);
    free_metrics(memory, partition->metrics, partition->metric_count, partition->metric_capacity);
    pool_free(&partition->records, memory);
    index_free(&partition->record_index, memory);
    keys_free(&partition->keys, memory);
    names_free(&partition->structs, memory);
    names_free(&partition->columns, memory);
    names_free(&partition->sources, memory);
    names_free(&partition->tables, memory);
    memory_free(memory, partition->sweep, partition->sweep_capacity * sizeof *partition->sweep);
    for (unsigned at = 0; at < LISTS; at++)
        memory_free(memory, partition->lists[at].changes,
                    partition->lists[at].capacity * sizeof *partition->lists[at].changes);
    memory_free(memory, partition->results,
                partition->result_capacity * sizeof *partition->results);
    memory_free(memory, partition->spare_results,
                partition->spare_capacity * sizeof *partition->results);
    pthread_mutex_destroy(&partition->lock);
}

int32_t partition_metric(const struct partition *partition, const void *name, size_t length)
{
    for (uint32_t number = 0; number < partition->metric_count; number++) {
        const struct metric *metric = &partition->metrics[number];
        if (metric->name_length == length && memcmp(metric->name, name, length) == 0)
            return (int32_t)number;
    }
    return -1;
}

/* An algorithm that stays brings its state; one that is new begins with the next sample. */
static void carry_state(const struct metric *from, const struct series *old,
                        const struct metric *to, struct series *series)
{
    series->live = series->started = series->changed = 0;
    for (unsigned at = 0; at < to->algorithm_count; at++) {
        const struct algorithm *algorithm = &to->algorithms[at];
        for (unsigned was = 0; was < from->algorithm_count; was++) {
            if (!algorithm_same(algorithm, &from->algorithms[was]))
                continue;
            memcpy(series_state(algorithm, series), series_state(&from->algorithms[was], old),
                   algorithm->detector->size);
            series->live |= (uint16_t)((old->live >> was & 1u) << at);
            series->started |= (uint16_t)((old->started >> was & 1u) << at);
        }
    }
    if (series_has_open(old)) /* what is in the ring counts for the new ones too */
        series->live = to->all;
}

/* The windows of a series in another layout. Where extremes or lanes were not kept, the periods
 * that have samples already stay without: half of a period's would be a wrong number. */
static void carry_windows(const struct metric *from, const struct series *old,
                          const struct metric *to, struct series *series)
{
    memcpy(series_bins(to, series), series_bins(from, old), RING * sizeof(struct bin));
    for (unsigned slot = 0; to->extremes && slot < RING; slot++) {
        const struct bin *bin = &series_bins(to, series)[slot];
        double begun = bin->count ? NAN : 0;
        series_extremes(to, series)[slot] =
            from->extremes ? series_extremes(from, old)[slot] : (struct extremes){begun, begun};
    }
    if (to->lanes && from->lanes) {
        memcpy(series_lanes(to, series), series_lanes(from, old), 3 * sizeof(uint32_t));
    } else if (to->lanes) {
        uint32_t *lanes = series_lanes(to, series);
        lanes[0] = NONE;
        for (unsigned slot = 0; slot < RING; slot++)
            lanes[2] |= (uint32_t)(series_bins(to, series)[slot].count > 0) << slot;
    }
}

static void copy_series(struct metric *from, uint32_t id, struct metric *to, uint32_t made)
{
    const struct series *old = series_at(from, id);
    struct series *series = series_at(to, made);
    *series = *old;
    carry_state(from, old, to, series);
    carry_windows(from, old, to, series);
    if (!to->lanes)
        return;
    for (uint32_t at = *series_lanes(to, series); at != NONE;) {
        struct lane *lane = pool_at(&to->lane_pool, at);
        lane->series = made;
        at = lane->next;
    }
}

/* ---- changing metrics ------------------------------------------------------------------------------ */

/* The metrics to come: those that stay as they are with all they hold, those that change with
 * room for their series. A metric keeps its number while it is configured. */
struct change_over {
    struct metric *metrics;
    uint32_t count;
    size_t capacity;
};

static uint32_t number_for(const struct partition *partition, const struct change_over *over,
                           const struct metric *wanted)
{
    int32_t number = partition_metric(partition, wanted->name, wanted->name_length);
    if (number >= 0)
        return (uint32_t)number;
    for (uint32_t at = 0; at < over->count; at++) {
        bool was_free = at >= partition->metric_count || partition->metrics[at].name_length == 0;
        if (was_free && over->metrics[at].name_length == 0)
            return at;
    }
    return over->count;
}

static int plan(struct partition *partition, const struct metric *wanted, uint32_t count,
                struct change_over *over)
{
    over->count = partition->metric_count;
    if (memory_reserve(partition->memory, &over->metrics, sizeof *over->metrics, &over->capacity,
                       (size_t)over->count + count))
        return -1;
    if (over->capacity > 0)
        memset(over->metrics, 0, over->capacity * sizeof *over->metrics);
    for (uint32_t at = 0; at < count; at++) {
        uint32_t number = number_for(partition, over, &wanted[at]);
        over->count += number == over->count;
        over->metrics[number] = wanted[at];
        if (number < partition->metric_count && partition->metrics[number].name_length &&
            !metric_same(&partition->metrics[number], &wanted[at]) &&
            pool_reserve(&over->metrics[number].pool, partition->memory,
                         partition->metrics[number].pool.live))
            return -1;
    }
    return 0;
}

/* Changes that are noted by the number of an algorithm are noted by their struct's name instead:
 * the numbers are about to mean something else. */
static int name_changes(struct partition *partition)
{
    struct change_list *announced = &partition->lists[ANNOUNCED];
    for (size_t at = 0; at < announced->count; at++) {
        struct change *change = &announced->changes[at];
        if (change->what & CHANGE_PROXY) {
            uint32_t name = partition_proxy_name(partition, change->what);
            if (name == NONE)
                return -1;
            change->what = name;
        }
    }
    return 0;
}

static void end_series(struct partition *partition, const struct metric *metric,
                       const struct series *series, const struct metric *then, uint32_t number)
{
    for (unsigned at = 0; at < metric->algorithm_count && partition->watching & TO_ANNOUNCED; at++) {
        bool stays = false;
        for (unsigned now = 0; then && now < then->algorithm_count; now++)
            stays = stays || algorithm_same(&metric->algorithms[at], &then->algorithms[now]);
        if (stays || !(series->live & 1u << at))
            continue;
        uint32_t name = partition_proxy_name(partition, CHANGE_PROXY | number << 8 | at);
        if (name == NONE)
            partition->counters.changes_dropped++;
        else
            partition_note(partition, TO_ANNOUNCED, series->key, name);
    }
}

/* Tell of the proxy UVEs that begin with what is in the ring. */
static void note_begun(struct partition *partition, const struct metric *from,
                       const struct series *old, const struct metric *to, struct series *series,
                       uint32_t number)
{
    uint16_t begun = series->live;
    for (unsigned at = 0; at < to->algorithm_count; at++)
        for (unsigned was = 0; was < from->algorithm_count; was++)
            if (old->live >> was & 1u &&
                algorithm_same(&to->algorithms[at], &from->algorithms[was]))
                begun &= (uint16_t)~(1u << at);
    partition_note_series(partition, number, series, begun, 0);
}

/* Move the series of one key over; the list of the key is made anew. */
static void change_key(struct partition *partition, struct change_over *over, struct key *key)
{
    uint32_t id = key->first_series, *link = &key->first_series;
    uint16_t of = key->first_metric, *link_metric = &key->first_metric;
    while (id != NONE) {
        struct metric *from = &partition->metrics[of], *to = &over->metrics[of];
        struct series *series = series_at(from, id);
        uint32_t next = series->sibling;
        uint16_t next_metric = series->sibling_metric;
        if (!metric_same(from, to)) {
            end_series(partition, from, series, to->name_length ? to : NULL, of);
            if (to->name_length) {
                uint32_t made = pool_take(&to->pool, partition->memory); /* room was made */
                copy_series(from, id, to, made);
                note_begun(partition, from, series, to, series_at(to, made), of);
                id = made;
                series = series_at(to, made);
            } else {
                id = NONE;
                atomic_fetch_sub_explicit(&partition->limits->held_series, 1,
                                          memory_order_relaxed);
            }
        }
        if (id != NONE) {
            *link = id;
            *link_metric = of;
            link = &series->sibling;
            link_metric = &series->sibling_metric;
        }
        id = next;
        of = next_metric;
    }
    *link = NONE;
}

/* What of the old metrics does not live on is freed: pools, and the names that lanes kept. */
static void drop_old(struct partition *partition, struct change_over *over)
{
    for (uint32_t number = 0; number < partition->metric_count; number++) {
        struct metric *from = &partition->metrics[number];
        if (from->name_length && metric_same(from, &over->metrics[number]))
            continue;
        pool_free(&from->pool, partition->memory);
        pool_free(&from->lane_pool, partition->memory);
    }
    memory_free(partition->memory, partition->metrics,
                partition->metric_capacity * sizeof *partition->metrics);
}

static void drop_lanes(struct partition *partition, struct metric *metric)
{
    for (uint32_t id = 0; id < partition->keys.count; id++) {
        const struct key *key = partition->keys.entries[id];
        uint32_t at = key && !key->gone ? key->first_series : NONE;
        for (uint32_t of = at == NONE ? 0 : key->first_metric; at != NONE;) {
            const struct series *series = series_at(&partition->metrics[of], at);
            uint32_t lane = &partition->metrics[of] == metric ? *series_lanes(metric, series) : NONE;
            while (lane != NONE) {
                const struct lane *one = pool_at(&metric->lane_pool, lane);
                names_drop(&partition->sources, one->source);
                lane = one->next;
            }
            at = series->sibling;
            of = series->sibling_metric;
        }
    }
}

/* Before anything moves: pools of what stays, and lanes, go over; slots will be bound anew. */
static void hand_over(struct partition *partition, struct change_over *over)
{
    for (uint32_t number = 0; number < partition->metric_count; number++) {
        struct metric *from = &partition->metrics[number], *to = &over->metrics[number];
        if (!from->name_length)
            continue;
        if (to->name_length && metric_same(from, to)) {
            *to = *from;
            continue;
        }
        partition_unbind(partition, number);
        if (from->lanes && to->name_length && to->lanes) {
            to->lane_pool = from->lane_pool;
            pool_init(&from->lane_pool, from->lane_pool.cell, 0);
        } else if (from->lanes) {
            drop_lanes(partition, from);
        }
    }
}

static void change_keys(struct partition *partition, struct change_over *over)
{
    for (uint32_t id = 0; id < partition->keys.count; id++) {
        struct key *key = partition->keys.entries[id];
        if (key && !key->gone)
            change_key(partition, over, key);
    }
}

static void settle(struct partition *partition)
{
    for (uint32_t id = 0; id < partition->columns.count; id++) {
        struct name *column = names_at(&partition->columns, id);
        if (column != NULL)
            column->tag = partition_metric(partition, column->text, column->length);
    }
    for (uint32_t id = 0; id < partition->keys.count; id++) {
        struct key *key = partition->keys.entries[id];
        if (key && !key->gone && key->record_count == 0)
            partition_release_key(partition, key);
    }
    partition_recycle(partition);
}

int partition_configure(struct partition *partition, const struct metric *wanted, uint32_t count)
{
    struct change_over over = {0};
    if (plan(partition, wanted, count, &over) || name_changes(partition)) {
        for (uint32_t number = 0; number < over.count && over.metrics; number++)
            pool_free(&over.metrics[number].pool, partition->memory);
        memory_free(partition->memory, over.metrics, over.capacity * sizeof *over.metrics);
        return -1;
    }
    /* Results that nobody took would be read with the numbers that metrics have from now on. */
    partition->counters.results_dropped += partition->result_count;
    partition->result_count = 0;
    partition->lists[OBSERVED].count = 0; /* who observes looks at everything anew (engine.h) */
    hand_over(partition, &over);
    change_keys(partition, &over);
    drop_old(partition, &over);
    partition->metrics = over.metrics;
    partition->metric_count = over.count;
    partition->metric_capacity = over.capacity;
    partition_observe(partition, partition->observed);
    settle(partition);
    return 0;
}
