/* changes.c: what others want to hear of: changed structs, closed results. Both wait in arrays of
 * bounded size until they are taken; what doesn't fit is counted. */
#include "partition.h"

#include <string.h>

static void put(struct partition *partition, unsigned list, struct change change)
{
    struct change_list *to = &partition->lists[list];
    size_t wanted = to->count + 1;
    if (wanted > CHANGE_LIMIT || memory_reserve(partition->memory, &to->changes,
                                                sizeof *to->changes, &to->capacity, wanted)) {
        struct partition_counters *counters = &partition->counters;
        ++*(list == OBSERVED ? &counters->observed_dropped : &counters->changes_dropped);
        return;
    }
    to->changes[to->count++] = change;
}

void partition_note(struct partition *partition, unsigned lists, uint32_t key, uint32_t what)
{
    for (unsigned list = 0; list < LISTS; list++)
        if (lists & partition->watching & 1u << list)
            put(partition, list, (struct change){key, what});
}

void partition_note_series(struct partition *partition, uint32_t metric, struct series *series,
                           uint16_t announced, uint16_t observed)
{
    if (!partition->watching)
        return;
    uint32_t what = CHANGE_PROXY | metric << 8;
    if (series->stamps[ANNOUNCED] != partition->rounds[ANNOUNCED]) {
        series->stamps[ANNOUNCED] = partition->rounds[ANNOUNCED];
        series->changed = 0;
    }
    unsigned fresh = announced & ~(unsigned)series->changed;
    series->changed |= announced;
    for (unsigned at = 0; fresh >> at; at++)
        if (fresh & 1u << at)
            partition_note(partition, TO_ANNOUNCED, series->key, what | at);
    if (observed && series->stamps[OBSERVED] != partition->rounds[OBSERVED]) {
        series->stamps[OBSERVED] = partition->rounds[OBSERVED];
        partition_note(partition, TO_OBSERVED, series->key, what | ALL_OBSERVED);
    }
}

static void set_room(struct partition *partition)
{
    uint64_t limit = partition->limits->results;
    partition->result_room =
        partition->result_capacity < limit ? partition->result_capacity : limit;
}

struct result *partition_make_result(struct partition *partition)
{
    uint64_t limit = partition->limits->results;
    size_t wanted = partition->result_count + 1;
    if (wanted > limit ||
        memory_reserve(partition->memory, &partition->results, sizeof *partition->results,
                       &partition->result_capacity, wanted)) {
        partition->counters.results_dropped += limit > 0;
        return &partition->discarded;
    }
    set_room(partition);
    return &partition->results[partition->result_count++];
}

static bool has_changes(const struct partition *partition)
{
    size_t count = 0;
    for (unsigned at = 0; at < LISTS; at++)
        count += partition->lists[at].count;
    return count > 0;
}

void partition_recycle(struct partition *partition)
{
    if (partition->frozen)
        return;
    names_recycle(&partition->columns, partition->memory);
    names_recycle(&partition->sources, partition->memory);
    names_recycle(&partition->tables, partition->memory);
    if (has_changes(partition))
        return;
    names_recycle(&partition->structs, partition->memory);
    if (partition->result_count == 0 && !partition->results_taken)
        keys_recycle(&partition->keys, partition->memory);
}

size_t partition_change_count(const struct partition *partition, unsigned list)
{
    return partition->lists[list].count;
}

/* A list was taken: what changes from now on is noted again. */
static void end_round(struct partition *partition, unsigned list)
{
    partition->lists[list].count = 0;
    partition->rounds[list]++;
    partition_recycle(partition);
}

void partition_watch(struct partition *partition, unsigned list, bool on)
{
    partition->watching = on ? partition->watching | 1u << list : partition->watching & ~(1u << list);
    end_round(partition, list);
}

static bool is_wanted(const struct key *key, const struct text *prefixes, size_t prefix_count)
{
    for (size_t at = 0; at < prefix_count; at++)
        if (prefixes[at].length <= key->length &&
            memcmp(key->text, prefixes[at].bytes, prefixes[at].length) == 0)
            return true;
    return false;
}

/* Spell <algorithm>-<metric>; returns its length. */
static size_t spell_proxy(const struct partition *partition, uint32_t what, char *name)
{
    const struct metric *metric = &partition->metrics[(what & ~CHANGE_PROXY) >> 8];
    const struct algorithm *algorithm = &metric->algorithms[what & 0xff];
    size_t first = strlen(algorithm->name);
    memcpy(name, algorithm->name, first);
    name[first] = '-';
    memcpy(name + first + 1, metric->name, metric->name_length);
    return first + 1 + metric->name_length;
}

uint32_t partition_proxy_name(struct partition *partition, uint32_t what)
{
    char text[ALGORITHM_NAME + METRIC_NAME];
    size_t length = spell_proxy(partition, what, text);
    /* Never in the index: it is retired at once, and goes when the changes are taken. */
    uint32_t hash = names_hash(&partition->structs, text, length);
    uint32_t id = names_add(&partition->structs, partition->memory, hash, text, length);
    if (id != NONE)
        names_drop(&partition->structs, id);
    return id;
}

/* Write [key, struct]; returns 1. */
static uint32_t write_change(const struct key *key, const char *name, size_t length,
                             struct msgpack_writer *writer)
{
    msgpack_write_array(writer, 2);
    msgpack_write_str(writer, key->text, key->length);
    msgpack_write_str(writer, name, length);
    return 1;
}

/* Write a change of proxy UVEs; returns of how many. */
static uint32_t write_proxies(const struct partition *partition, uint32_t what,
                              const struct key *key, struct msgpack_writer *writer)
{
    char name[ALGORITHM_NAME + METRIC_NAME];
    if ((what & 0xff) != ALL_OBSERVED)
        return write_change(key, name, spell_proxy(partition, what, name), writer);
    unsigned observed = partition->metrics[(what & ~CHANGE_PROXY) >> 8].observed;
    uint32_t written = 0;
    for (unsigned at = 0; observed >> at; at++)
        if (observed & 1u << at)
            written += write_change(
                key, name, spell_proxy(partition, (what & ~0xffu) | at, name), writer);
    return written;
}

void partition_take_changes(struct partition *partition, unsigned list,
                            const struct text *prefixes, size_t prefix_count,
                            struct msgpack_writer *writer)
{
    const struct change_list *taken = &partition->lists[list];
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (size_t at = 0; at < taken->count; at++) {
        uint32_t what = taken->changes[at].what;
        const struct key *key = partition->keys.entries[taken->changes[at].key];
        if (!is_wanted(key, prefixes, prefix_count))
            continue;
        if (what & CHANGE_PROXY) {
            written += write_proxies(partition, what, key, writer);
        } else {
            const struct name *name = names_at(&partition->structs, what);
            written += write_change(key, name->text, name->length, writer);
        }
    }
    msgpack_close_array(writer, opened, written);
    if (!writer->failed)
        end_round(partition, list);
}

struct result *partition_take_results(struct partition *partition, size_t *count,
                                      size_t *capacity)
{
    struct result *results = partition->results;
    *count = partition->result_count;
    *capacity = partition->result_capacity;
    partition->results = partition->spare_results;
    partition->result_capacity = partition->spare_capacity;
    partition->result_count = 0;
    partition->spare_results = NULL;
    partition->spare_capacity = 0;
    set_room(partition);
    /* Changes may speak of them, and who saves the partition looks at all. */
    if (!has_changes(partition) && !partition->frozen)
        keys_hold(&partition->keys, partition->memory);
    partition->results_taken = *count > 0;
    partition_recycle(partition);
    return results;
}

void partition_give_results(struct partition *partition, struct result *results, size_t capacity)
{
    if (partition->results == NULL) { /* nothing was closed meanwhile: no second array is needed */
        partition->results = results;
        partition->result_capacity = capacity;
        set_room(partition);
        return;
    }
    if (partition->spare_results != NULL) {
        memory_free(partition->memory, results, capacity * sizeof *results);
        return;
    }
    partition->spare_results = results;
    partition->spare_capacity = capacity;
}
