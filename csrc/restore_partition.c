/* restore_partition.c: keys and records out of a snapshot. Keys find their partitions anew, so that
 * there may be more of them than there were, or fewer. */
#include "hash.h"
#include "snapshot.h"

enum { ATTRIBUTES_AT_ONCE = 4096 };

/* ---- names -------------------------------------------------------------------------------------------- */

static bool restore_names(struct body *body, struct restored_names *names)
{
    struct restoring *restoring = &body->restoring;
    uint32_t count;
    if (!restore_array(restoring, &count))
        return false;
    if (count == 0)
        return true;
    names->rows = memory_get(&body->engine->memory, count * sizeof *names->rows);
    if (names->rows == NULL)
        return restore_no_memory(restoring);
    names->count = count;
    for (uint32_t id = 0; id < count; id++) {
        struct restored_name *name = &names->rows[id];
        if (!restore_optional(restoring, &name->text))
            return false;
        if (name->text.bytes != NULL)
            name->hash = hash_name(name->text.bytes, name->text.length, body->engine->seed);
    }
    return true;
}

/* Records of a source that was gone when the head was written were removed by then, or about to be. */
static bool restore_sources(struct body *body)
{
    const struct engine *engine = body->engine;
    if (!restore_names(body, &body->sources))
        return false;
    for (uint32_t at = 0; at < body->sources.count; at++) {
        struct restored_name *row = &body->sources.rows[at];
        row->source = NONE;
        if (row->text.bytes == NULL)
            continue;
        if (row->text.length == 0 || row->text.length > SOURCE_BYTES ||
            !msgpack_is_utf8((const uint8_t *)row->text.bytes, row->text.length))
            return restore_broken(&body->restoring, "a source has no good name");
        row->source =
            names_find(&engine->source_names, row->hash, row->text.bytes, row->text.length);
        if (row->source != NONE && engine->sources[row->source].gone)
            row->source = NONE;
    }
    return true;
}

static bool restore_reference(struct body *body, const struct restored_names *names,
                              const struct restored_name **name)
{
    uint64_t id;
    if (!restore_natural(&body->restoring, NONE - 1, &id))
        return false;
    if (id >= names->count || names->rows[id].text.bytes == NULL)
        return restore_broken(&body->restoring, "a name is missing");
    *name = &names->rows[id];
    return true;
}

bool restore_source_of(struct body *body, const struct restored_name **source)
{
    return restore_reference(body, &body->sources, source);
}

static void free_names(struct body *body, struct restored_names *names)
{
    memory_free(&body->engine->memory, names->rows, names->count * sizeof *names->rows);
}

/* ---- records ------------------------------------------------------------------------------------------ */

/* Take on what the batch holds. Records stand before those that were made before them: in turned
 * order they come to stand as they were. */
static bool take_records(struct body *body)
{
    struct batch *batch = &body->engine->batch;
    struct partition *partition = body->target;
    uint32_t count = batch->record_count;
    if (count == 0)
        return true;
    for (uint32_t at = 0; at < count; at++)
        body->order[at] = count - 1 - at;
    pthread_mutex_lock(&partition->lock);
    uint32_t held = partition->records.live;
    batch->restores = true;
    int status = partition_prepare(partition, batch, body->order, count, body->now.wall);
    bool good = status == 0;
    for (uint32_t at = 0; at < count; at++)
        good = good && batch->records[at].rejection == RECORD_GOOD;
    if (good)
        partition_commit(partition, batch, body->order, count);
    while (good && !partition_sweep(partition))
        ;
    good = good && partition->records.live == held + count;
    pthread_mutex_unlock(&partition->lock);
    batch->restores = false;
    batch_clear(batch);
    if (status)
        return restore_no_memory(&body->restoring);
    return good || restore_broken(&body->restoring, "a record is no record, or there twice");
}

static bool restore_attribute(struct body *body, const struct restored_name *struct_name)
{
    struct batch *batch = &body->engine->batch;
    struct attribute_in *attribute = &batch->attributes[batch->attribute_count];
    const struct restored_name *column = NULL;
    if (!restore_reference(body, &body->columns, &column))
        return false;
    const char *text = column->text.bytes;
    size_t behind = struct_name->text.length + 1;
    if (column->text.length <= behind || column->text.length - behind > NAME_BYTES ||
        text[behind - 1] != '-' || memcmp(text, struct_name->text.bytes, behind - 1) != 0)
        return restore_broken(&body->restoring, "an attribute is of another struct");
    *attribute = (struct attribute_in){.name = (const uint8_t *)text + behind,
                                       .name_length = (uint8_t)(column->text.length - behind)};
    batch->attribute_count++;
    return restore_value(&body->restoring, &attribute->value, &attribute->value_length);
}

static int reserve(struct batch *batch)
{
    return memory_reserve(batch->memory, &batch->records, sizeof *batch->records,
                          &batch->record_capacity, RESTORED_AT_ONCE) ||
           memory_reserve(batch->memory, &batch->attributes, sizeof *batch->attributes,
                          &batch->attribute_capacity, ATTRIBUTES_AT_ONCE + RECORD_SLOTS);
}

/* Read a record behind those of the batch; `*kept` tells whether it stays there. */
static bool restore_record(struct body *body, const struct text *key, uint32_t key_hash,
                           bool *kept)
{
    struct restoring *restoring = &body->restoring;
    struct batch *batch = &body->engine->batch;
    const struct restored_name *struct_name = NULL, *source = NULL;
    uint32_t fields, first = batch->attribute_count;
    if (!restore_array(restoring, &fields))
        return false;
    if (fields < 4 || fields % 2 != 0 || fields > 2 + 2 * RECORD_SLOTS)
        return restore_broken(restoring, "a record has no attributes, or too many");
    if (!restore_reference(body, &body->structs, &struct_name) ||
        !restore_source_of(body, &source))
        return false;
    if (struct_name->text.length > NAME_BYTES)
        return restore_broken(restoring, "a struct has no good name");
    for (uint32_t left = fields; left > 2; left -= 2)
        if (!restore_attribute(body, struct_name))
            return false;
    *kept = source->source != NONE;
    if (!*kept) {
        batch->attribute_count = first;
        return true;
    }
    batch->records[batch->record_count++] = (struct record_in){
        .source = (const uint8_t *)source->text.bytes,
        .key = (const uint8_t *)key->bytes,
        .struct_name = (const uint8_t *)struct_name->text.bytes,
        .first = first,
        .count = batch->attribute_count - first,
        .hash = hash_record(key_hash, struct_name->hash, source->hash),
        .key_hash = key_hash,
        .record = NONE,
        .holder = source->source,
        .source_length = (uint16_t)source->text.length,
        .key_length = (uint16_t)key->length,
        .struct_length = (uint8_t)struct_name->text.length,
    };
    return true;
}

static bool restore_records(struct body *body, const struct text *key, uint32_t key_hash,
                            uint32_t *kept)
{
    struct batch *batch = &body->engine->batch;
    uint32_t count;
    if (!restore_array(&body->restoring, &count))
        return false;
    *kept = 0;
    if (batch->record_count + count > RESTORED_AT_ONCE && !take_records(body))
        return false; /* so that those of a key are taken together, as far as that goes */
    for (; count > 0; count--) {
        bool one = false;
        if ((batch->record_count == RESTORED_AT_ONCE ||
             batch->attribute_count > ATTRIBUTES_AT_ONCE) &&
            !take_records(body))
            return false;
        if (reserve(batch))
            return restore_no_memory(&body->restoring);
        if (!restore_record(body, key, key_hash, &one))
            return false;
        *kept += one;
    }
    return true;
}

/* ---- keys --------------------------------------------------------------------------------------------- */

/* Go on to the partition of a key. */
static bool turn_to(struct body *body, const struct text *key)
{
    struct engine *engine = body->engine;
    struct partition *target = &engine->partitions[hash_partition(
        (const uint8_t *)key->bytes, key->length, engine->partition_count)];
    bool good = target == body->target || take_records(body);
    body->target = target;
    return good;
}

static struct key *make_key(struct body *body, const struct text *text, uint32_t hash)
{
    struct partition *partition = body->target;
    struct key *key = NULL;
    pthread_mutex_lock(&partition->lock);
    if (keys_find(&partition->keys, hash, text->bytes, text->length) != NULL)
        restore_broken(&body->restoring, "a key is there twice");
    else if ((key = partition_key(partition, (const uint8_t *)text->bytes, text->length, hash)) ==
             NULL)
        restore_no_memory(&body->restoring);
    pthread_mutex_unlock(&partition->lock);
    return key;
}

/* The series of a key, whose records are taken on later. One that has neither goes: its last
 * records were those of a source that is gone. */
static bool restore_windows(struct body *body, struct key *key, uint32_t records)
{
    pthread_mutex_lock(&body->target->lock);
    bool good = restore_series(body, key);
    if (good && records == 0)
        partition_release_key(body->target, key);
    pthread_mutex_unlock(&body->target->lock);
    return good;
}

static bool restore_key(struct body *body)
{
    struct restoring *restoring = &body->restoring;
    struct engine *engine = body->engine;
    struct text text;
    uint32_t kept;
    if (!restore_array_of(restoring, KEY_FIELDS) || !restore_text(restoring, &text))
        return false;
    const uint8_t *bytes = (const uint8_t *)text.bytes;
    if (!batch_is_key(bytes, text.length))
        return restore_broken(restoring, "a key is none");
    if (hash_partition(bytes, text.length, engine->replay.saved) != body->number)
        return restore_broken(restoring, "a key is of another partition");
    uint32_t hash = hash_name(bytes, text.length, engine->seed);
    struct key *key = turn_to(body, &text) ? make_key(body, &text, hash) : NULL;
    return key != NULL && restore_records(body, &text, hash, &kept) &&
           restore_windows(body, key, kept);
}

static bool restore_keys(struct body *body)
{
    uint32_t count;
    bool good = restore_array(&body->restoring, &count);
    for (; good && count > 0; count--)
        good = restore_key(body);
    return good && take_records(body);
}

/* ---- the body ------------------------------------------------------------------------------------------ */

static bool restore_times(struct body *body)
{
    uint64_t wall;
    if (!restore_natural(&body->restoring, UINT64_MAX, &wall))
        return false;
    body->period = wall / PERIOD_US;
    body->passed = body->now.wall > wall ? (body->now.wall - wall) / 1000 : 0;
    for (uint32_t at = 0; at < body->engine->partition_count; at++) {
        struct partition *partition = &body->engine->partitions[at];
        pthread_mutex_lock(&partition->lock);
        partition_clock(partition, body->now);
        pthread_mutex_unlock(&partition->lock);
    }
    return true;
}

static bool restore_body(struct body *body)
{
    struct restoring *restoring = &body->restoring;
    struct replay *replay = &body->engine->replay;
    if (!restore_array_of(restoring, PARTITION_FIELDS) ||
        !restore_natural(restoring, UINT16_MAX, &body->number))
        return false;
    if (body->number >= replay->saved || body->number != replay->restored)
        return restore_broken(restoring, "a partition is out of order, or one too many");
    return restore_times(body) && restore_metrics(body) && restore_names(body, &body->structs) &&
           restore_sources(body) && restore_names(body, &body->columns) &&
           restore_positions(body->engine, restoring) && restore_keys(body) &&
           restore_close(restoring);
}

enum restore_status engine_restore_partition(struct engine *engine, const uint8_t *bytes,
                                             size_t length, struct moment now,
                                             struct batch_fault *fault)
{
    struct body body = {.engine = engine, .now = now};
    restore_open(&body.restoring, bytes, length, fault);
    pthread_mutex_lock(&engine->ingest);
    if (restore_body(&body))
        engine->replay.restored++;
    batch_clear(&engine->batch);
    free_names(&body, &body.structs);
    free_names(&body, &body.sources);
    free_names(&body, &body.columns);
    memory_free(&engine->memory, body.metrics, body.metric_count * sizeof *body.metrics);
    pthread_mutex_unlock(&engine->ingest);
    return body.restoring.status;
}
