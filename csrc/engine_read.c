/* engine_read.c: questions about all partitions at once. Each partition is locked in its turn. */
#include "engine.h"

#include <string.h>

enum { KEYS_AT_ONCE = 4096 }; /* compared under one hold of a partition's lock */

static int compare(const char *one, size_t one_length, const char *other, size_t other_length)
{
    size_t shorter = one_length < other_length ? one_length : other_length;
    int order = memcmp(one, other, shorter);
    return order ? order : (one_length > other_length) - (one_length < other_length);
}

static bool is_before(const struct listed_key *one, const struct listed_key *other)
{
    return compare(one->text, one->length, other->text, other->length) < 0;
}

static void swap(struct listed_key *one, struct listed_key *other)
{
    struct listed_key kept = *one;
    *one = *other;
    *other = kept;
}

static void sift_up(struct listed_key *heap, size_t at)
{
    for (; at > 0 && is_before(&heap[(at - 1) / 2], &heap[at]); at = (at - 1) / 2)
        swap(&heap[(at - 1) / 2], &heap[at]);
}

static void sift_down(struct listed_key *heap, size_t count, size_t at)
{
    for (;;) {
        size_t greatest = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < count; child++)
            if (is_before(&heap[greatest], &heap[child]))
                greatest = child;
        if (greatest == at)
            return;
        swap(&heap[greatest], &heap[at]);
        at = greatest;
    }
}

static bool is_asked(const struct key_query *query, const struct key *key)
{
    const struct text *table = &query->table;
    if (compare(key->text, key->length, query->after.bytes, query->after.length) <= 0)
        return false;
    if (table->length && (key->length <= table->length || key->text[table->length] != ':' ||
                          memcmp(key->text, table->bytes, table->length) != 0))
        return false;
    if (query->match.length &&
        !keys_match(query->match.bytes, query->match.length, key->text, key->length))
        return false;
    for (size_t at = 0; at < query->pattern_count; at++)
        if (keys_match(query->patterns[at].bytes, query->patterns[at].length, key->text,
                       key->length))
            return true;
    return query->pattern_count == 0;
}

/* Keep the least `limit` keys: a heap whose greatest makes way. */
static void offer(struct key_list *list, size_t limit, const struct key *key)
{
    bool full = list->count == limit;
    if (full && compare(key->text, key->length, list->keys[0].text, list->keys[0].length) >= 0)
        return;
    if (!full && memory_reserve(list->memory, &list->keys, sizeof *list->keys, &list->capacity,
                                list->count + 1)) {
        list->failed = true;
        return;
    }
    struct listed_key one = {memory_get(list->memory, key->length), key->length};
    if (one.text == NULL) {
        list->failed = true;
        return;
    }
    memcpy(one.text, key->text, key->length);
    if (full) {
        memory_free(list->memory, list->keys[0].text, list->keys[0].length);
        list->keys[0] = one;
        sift_down(list->keys, list->count, 0);
    } else {
        list->keys[list->count] = one;
        sift_up(list->keys, list->count++);
    }
}

static void list_partition(struct partition *partition, const struct key_query *query,
                           struct key_list *list)
{
    bool more = true;
    uint32_t at_once = KEYS_AT_ONCE / (1 + (uint32_t)query->pattern_count) + 1, end = 0;
    for (uint32_t first = 0; more && !list->failed; first = end) {
        pthread_mutex_lock(&partition->lock);
        end = first + at_once;
        more = end < partition->keys.count;
        end = more ? end : partition->keys.count;
        for (uint32_t id = first; id < end && !list->failed; id++) {
            const struct key *key = partition->keys.entries[id];
            if (key != NULL && !key->gone && is_asked(query, key))
                offer(list, query->limit, key);
        }
        pthread_mutex_unlock(&partition->lock);
    }
}

void engine_keys(struct engine *engine, const struct key_query *query, struct key_list *list)
{
    *list = (struct key_list){.memory = &engine->memory};
    for (uint32_t at = 0; query->limit > 0 && at < engine->partition_count; at++)
        list_partition(&engine->partitions[at], query, list);
    for (size_t count = list->count; count > 1; count--) {
        swap(&list->keys[0], &list->keys[count - 1]);
        sift_down(list->keys, count - 1, 0);
    }
}

void key_list_free(struct key_list *list)
{
    for (size_t at = 0; at < list->count; at++)
        memory_free(list->memory, list->keys[at].text, list->keys[at].length);
    memory_free(list->memory, list->keys, list->capacity * sizeof *list->keys);
    *list = (struct key_list){.memory = list->memory};
}

void engine_tables(struct engine *engine, struct msgpack_writer *writer)
{
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (uint32_t at = 0; at < engine->partition_count; at++) {
        struct partition *partition = &engine->partitions[at];
        pthread_mutex_lock(&partition->lock);
        for (uint32_t id = 0; id < partition->tables.count; id++) {
            const struct name *table = names_at(&partition->tables, id);
            if (table == NULL || table->refs == 0)
                continue;
            msgpack_write_array(writer, 2);
            msgpack_write_str(writer, table->text, table->length);
            msgpack_write_uint(writer, table->refs);
            written++;
        }
        pthread_mutex_unlock(&partition->lock);
    }
    msgpack_close_array(writer, opened, written);
}

static void write_source(struct engine *engine, uint32_t id, struct msgpack_writer *writer)
{
    const struct name *name = names_at(&engine->source_names, id);
    const struct source *source = &engine->sources[id];
    msgpack_write_array(writer, 6);
    msgpack_write_str(writer, name->text, name->length);
    msgpack_write_uint(writer, source->last_seen);
    if (source->numbered) {
        msgpack_write_uint(writer, source->epoch);
        msgpack_write_uint(writer, source->seq);
    } else {
        msgpack_write_nil(writer);
        msgpack_write_nil(writer);
    }
    msgpack_write_uint(writer, source->durable);
    msgpack_write_uint(writer, source->gone);
}

void engine_sources(struct engine *engine, struct msgpack_writer *writer)
{
    pthread_mutex_lock(&engine->ingest);
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (uint32_t id = 0; id < engine->source_names.count; id++) {
        if (engine_knows(engine, id)) {
            write_source(engine, id, writer);
            written++;
        }
    }
    msgpack_close_array(writer, opened, written);
    pthread_mutex_unlock(&engine->ingest);
}

void engine_source_records(struct engine *engine, struct msgpack_writer *writer)
{
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (uint32_t at = 0; at < engine->partition_count; at++) {
        struct partition *partition = &engine->partitions[at];
        pthread_mutex_lock(&partition->lock);
        for (uint32_t id = 0; id < partition->sources.count; id++) {
            const struct name *source = names_at(&partition->sources, id);
            if (source == NULL || source->tag == 0)
                continue;
            msgpack_write_array(writer, 2);
            msgpack_write_str(writer, source->text, source->length);
            msgpack_write_uint(writer, (uint64_t)source->tag);
            written++;
        }
        pthread_mutex_unlock(&partition->lock);
    }
    msgpack_close_array(writer, opened, written);
}

uint32_t engine_source_count(struct engine *engine)
{
    pthread_mutex_lock(&engine->ingest);
    uint32_t count = engine->source_names.index.used;
    pthread_mutex_unlock(&engine->ingest);
    return count;
}

struct engine_counters engine_own_counters(struct engine *engine)
{
    pthread_mutex_lock(&engine->ingest);
    struct engine_counters counters = engine->counters;
    pthread_mutex_unlock(&engine->ingest);
    return counters;
}

void engine_lock(struct engine *engine, uint32_t partition)
{
    pthread_mutex_lock(&engine->partitions[partition].lock);
}

void engine_unlock(struct engine *engine, uint32_t partition)
{
    pthread_mutex_unlock(&engine->partitions[partition].lock);
}

struct partition_counters engine_partition_counters(struct engine *engine)
{
    struct partition_counters sum = {0};
    for (uint32_t at = 0; at < engine->partition_count; at++) {
        struct partition *partition = &engine->partitions[at];
        pthread_mutex_lock(&partition->lock);
        sum.samples += partition->counters.samples;
        sum.late += partition->counters.late;
        sum.closed += partition->counters.closed;
        sum.deleted += partition->counters.deleted;
        sum.results_dropped += partition->counters.results_dropped;
        sum.changes_dropped += partition->counters.changes_dropped;
        sum.observed_dropped += partition->counters.observed_dropped;
        pthread_mutex_unlock(&partition->lock);
    }
    return sum;
}
