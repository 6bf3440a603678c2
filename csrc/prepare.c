/* prepare.c: the half of applying that may fail: finding or making what a batch will write to. */
#include "hash.h"
#include "partition.h"

#include <math.h>
#include <string.h>

enum { WAVE = 32 };                       /* records whose memory is fetched ahead together */
static const double SAMPLE_LIMIT = 1e100; /* so that sums and squares of sums stay finite */
enum { FUTURE_US = 60000000 };

/* ---- slots ---------------------------------------------------------------------------------------- */

static int reserve_slots(struct partition *partition, struct record *record, uint32_t wanted)
{
    if (wanted <= record->capacity)
        return 0;
    uint32_t room = record->capacity ? record->capacity : INLINE_SLOTS;
    while (room < wanted)
        room *= 2;
    if (room > INLINE_SLOTS) {
        struct slot *outside = memory_get(partition->memory, room * sizeof *outside);
        if (outside == NULL)
            return -1;
        memcpy(outside, record_slots(record), record->count * sizeof *outside);
        if (record->capacity > INLINE_SLOTS)
            memory_free(partition->memory, record->outside,
                        record->capacity * sizeof *outside);
        record->outside = outside;
        size_t grown = room - (record->capacity > INLINE_SLOTS ? record->capacity : 0u);
        holding_of(partition, record)->bytes += grown * sizeof *outside;
    }
    record->capacity = room & 0x7fff;
    return 0;
}

/* The slot of a name, looked for from where it was last time; NO_SLOT. */
static uint16_t find_slot(const struct partition *partition, struct record *record,
                          uint32_t expected, const struct attribute_in *in, uint32_t struct_length)
{
    const struct slot *slots = record_slots(record);
    for (uint32_t step = 0; step < record->count; step++) {
        uint32_t at = expected + step;
        at = at >= record->count ? at % record->count : at;
        const struct name *column = names_at(&partition->columns, slots[at].column);
        if (column->length == struct_length + 1 + in->name_length &&
            memcmp(column->text + struct_length + 1, in->name, in->name_length) == 0)
            return (uint16_t)at;
    }
    return NO_SLOT;
}

/* ---- finding and making ---------------------------------------------------------------------------- */

static bool is_record(const struct partition *partition, const struct record *record,
                      const struct record_in *in)
{
    const struct name *struct_name = names_at(&partition->structs, record->struct_name);
    const struct name *source = names_at(&partition->sources, record->source);
    return record->key->length == in->key_length && struct_name->length == in->struct_length &&
           source->length == in->source_length &&
           memcmp(record->key->text, in->key, in->key_length) == 0 &&
           memcmp(struct_name->text, in->struct_name, in->struct_length) == 0 &&
           memcmp(source->text, in->source, in->source_length) == 0;
}

static uint32_t find_record(const struct partition *partition, const struct record_in *in)
{
    uint32_t at = in->hash, id;
    while ((id = index_next(&partition->record_index, in->hash, &at)) != NONE)
        if (is_record(partition, pool_at(&partition->records, id), in))
            return id;
    return NONE;
}

static void drop_unused(struct names *names, uint32_t id)
{
    if (id != NONE && names_at(names, id)->refs == 0)
        names_drop(names, id);
}

struct key *partition_key(struct partition *partition, const uint8_t *text, size_t length,
                          uint32_t hash)
{
    struct key *key = keys_find(&partition->keys, hash, text, length);
    if (key != NULL)
        return key;
    const uint8_t *colon = memchr(text, ':', length);
    uint32_t table =
        names_intern(&partition->tables, partition->memory, text, (size_t)(colon - text));
    if (table == NONE)
        return NULL;
    key = keys_add(&partition->keys, partition->memory, hash, text, length);
    if (key == NULL) {
        drop_unused(&partition->tables, table);
        return NULL;
    }
    key->table = table;
    names_at(&partition->tables, table)->refs++;
    atomic_fetch_add_explicit(&partition->limits->held_keys, 1, memory_order_relaxed);
    return key;
}

static void link_record(struct partition *partition, uint32_t id, struct key *key)
{
    struct record *record = pool_at(&partition->records, id);
    record->key = key;
    record->next = key->first_record;
    record->previous = NONE;
    if (record->next != NONE)
        ((struct record *)pool_at(&partition->records, record->next))->previous = id;
    key->first_record = id;
    key->record_count++;
    partition_mark_shared(partition, key, id);
}

/* Remember to look at a record when the batch is done; room for it was made. */
static void sweep_later(struct partition *partition, uint32_t id)
{
    struct record *record = pool_at(&partition->records, id);
    if (!record->swept)
        partition->sweep[partition->sweep_count++] = id;
    record->swept = true;
}

static uint32_t make_record(struct partition *partition, const struct record_in *in)
{
    if (index_reserve(&partition->record_index, partition->memory))
        return NONE;
    uint32_t struct_name =
        names_intern(&partition->structs, partition->memory, in->struct_name, in->struct_length);
    if (struct_name != NONE && names_at(&partition->structs, struct_name)->refs == 0)
        names_at(&partition->structs, struct_name)->number =
            partition_observes_struct(partition, (const char *)in->struct_name,
                                      in->struct_length);
    uint32_t source = struct_name == NONE ? NONE
                                          : names_intern(&partition->sources, partition->memory,
                                                         in->source, in->source_length);
    uint32_t id = source == NONE ? NONE : pool_take(&partition->records, partition->memory);
    struct key *key = id == NONE ? NULL
                                 : partition_key(partition, in->key, in->key_length, in->key_hash);
    if (key == NULL) {
        if (id != NONE)
            pool_give(&partition->records, id);
        drop_unused(&partition->structs, struct_name);
        drop_unused(&partition->sources, source);
        return NONE;
    }
    struct record *record = pool_at(&partition->records, id);
    record->struct_name = struct_name;
    record->source = source;
    record->capacity = INLINE_SLOTS;
    for (unsigned list = 0; list < LISTS; list++)
        record->stamps[list] = partition->rounds[list] - 1;
    names_at(&partition->structs, struct_name)->refs++;
    names_at(&partition->sources, source)->refs++;
    names_at(&partition->sources, source)->tag++;
    names_at(&partition->sources, source)->number = in->holder;
    partition->limits->holdings[in->holder].records++;
    partition->limits->holdings[in->holder].bytes += sizeof *record;
    link_record(partition, id, key);
    index_put(&partition->record_index, in->hash, id);
    atomic_fetch_add_explicit(&partition->limits->held_records, 1, memory_order_relaxed);
    sweep_later(partition, id);
    return id;
}

/* ---- what may be refused ----------------------------------------------------------------------------- */

static size_t metric_spelling(char *spelling, const struct record_in *in,
                              const struct attribute_in *attribute)
{
    memcpy(spelling, in->struct_name, in->struct_length);
    spelling[in->struct_length] = '-';
    memcpy(spelling + in->struct_length + 1, attribute->name, attribute->name_length);
    return (size_t)in->struct_length + 1 + attribute->name_length;
}

static enum rejection check_sample(const struct record_in *in, struct attribute_in *attribute,
                                   uint64_t now)
{
    attribute->is_sample = msgpack_number(attribute->value, attribute->value_length,
                                          &attribute->sample, &attribute->is_real);
    if (!attribute->is_sample)
        return RECORD_GOOD;
    if (!(fabs(attribute->sample) <= SAMPLE_LIMIT))
        return BAD_VALUE;
    return in->time > now && in->time - now > FUTURE_US ? IN_FUTURE : RECORD_GOOD;
}

static enum rejection check_names(const struct batch *batch, const struct record_in *in,
                                  bool is_known)
{
    if (!is_known && !batch_is_key(in->key, in->key_length))
        return BAD_KEY;
    if (!is_known && !batch_is_name(in->struct_name, in->struct_length))
        return BAD_STRUCT;
    for (uint32_t at = 0; at < in->count; at++) {
        const struct attribute_in *attribute = &batch->attributes[in->first + at];
        if (attribute->slot == NO_SLOT && !batch_is_name(attribute->name, attribute->name_length))
            return BAD_ATTRIBUTE;
    }
    return RECORD_GOOD;
}

/* Limits apply to what is new: what is held already can always be updated in place. */
static enum rejection check_bytes(const struct partition *partition, const struct record_in *in,
                                  size_t bytes)
{
    const struct limits *limits = partition->limits;
    if (atomic_load_explicit(&partition->memory->used, memory_order_relaxed) + bytes >
        limits->bytes)
        return LIMIT_BYTES;
    return limits->holdings[in->holder].bytes + bytes > limits->source_bytes ? LIMIT_SOURCE_BYTES
                                                                             : RECORD_GOOD;
}

static enum rejection check_limits(const struct partition *partition, const struct batch *batch,
                                   const struct record_in *in, struct record *record)
{
    struct limits *limits = partition->limits;
    uint32_t added = 0;
    size_t bytes = 0;
    for (uint32_t at = 0; at < in->count; at++) {
        const struct attribute_in *attribute = &batch->attributes[in->first + at];
        uint32_t held = 0, length = attribute->value_length;
        added += attribute->slot == NO_SLOT && !attribute->is_nil;
        if (length <= INLINE_VALUE)
            continue;
        if (attribute->slot != NO_SLOT)
            (void)record_value(&record_slots(record)[attribute->slot], &held);
        bytes += length > held ? length - held : 0;
    }
    if (added + (record ? record->count : 0) > RECORD_SLOTS)
        return LIMIT_ATTRIBUTES;
    if (record == NULL && added > 0) {
        if (atomic_load_explicit(&limits->held_records, memory_order_relaxed) >= limits->records)
            return LIMIT_RECORDS;
        if (limits->holdings[in->holder].records >= limits->source_records)
            return LIMIT_SOURCE_RECORDS;
        if (atomic_load_explicit(&limits->held_keys, memory_order_relaxed) >= limits->keys &&
            keys_find(&partition->keys, in->key_hash, in->key, in->key_length) == NULL)
            return LIMIT_KEYS;
    }
    return added || bytes ? check_bytes(partition, in, bytes) : RECORD_GOOD;
}

static enum rejection check_samples(const struct partition *partition, struct batch *batch,
                                    const struct record_in *in, struct record *record,
                                    uint64_t now)
{
    for (uint32_t at = 0; at < in->count; at++) {
        struct attribute_in *attribute = &batch->attributes[in->first + at];
        bool is_metric;
        if (attribute->slot != NO_SLOT) {
            uint32_t column = record_slots(record)[attribute->slot].column;
            is_metric = partition_column_metric(partition, column) != NULL;
        } else {
            char spelling[METRIC_NAME];
            is_metric = partition_metric(partition, spelling,
                                         metric_spelling(spelling, in, attribute)) >= 0;
        }
        enum rejection rejection =
            is_metric ? check_sample(in, attribute, now) : RECORD_GOOD;
        if (rejection)
            return rejection;
    }
    return RECORD_GOOD;
}

/* ---- prepare ------------------------------------------------------------------------------------------ */

int partition_bind_slot(struct partition *partition, struct record *record, uint16_t slot,
                        const struct attribute_in *in)
{
    if (!in->is_sample || record_slots(record)[slot].series != NONE)
        return 0;
    uint32_t column = record_slots(record)[slot].column;
    int32_t number = names_at(&partition->columns, column)->tag;
    uint32_t id = series_of(partition, record->key, (uint32_t)number);
    if (id != NONE && partition->metrics[number].lanes)
        id = series_lane(partition, (uint32_t)number, id, record->source);
    record_slots(record)[slot].series = id;
    return id == NONE ? -1 : 0;
}

static uint32_t column_of(struct partition *partition, const char *spelling, size_t length,
                          size_t struct_length)
{
    struct names *columns = &partition->columns;
    uint32_t hash = names_hash(columns, spelling, length);
    uint32_t column = names_find(columns, hash, spelling, length);
    if (column != NONE)
        return column;
    column = names_add(columns, partition->memory, hash, spelling, length);
    if (column == NONE)
        return NONE;
    names_at(columns, column)->tag = partition_metric(partition, spelling, length);
    names_at(columns, column)->number =
        partition_observes_column(partition, spelling, length, struct_length);
    return column;
}

/* A slot for a name that the record has not, absent until the commit; NO_SLOT (no memory). */
static uint16_t add_slot(struct partition *partition, struct record *record,
                         const struct record_in *in, const struct attribute_in *attribute)
{
    char spelling[METRIC_NAME];
    size_t length = metric_spelling(spelling, in, attribute);
    if (reserve_slots(partition, record, record->count + 1u))
        return NO_SLOT;
    uint32_t column = column_of(partition, spelling, length, in->struct_length);
    if (column == NONE)
        return NO_SLOT;
    names_at(&partition->columns, column)->refs++;
    record_slots(record)[record->count] = (struct slot){.column = column, .series = NONE};
    return (uint16_t)record->count++;
}

/* Whether a sample would close a period by the ring. */
static bool would_close(const struct partition *partition, const struct record_in *in,
                        const struct slot *slot)
{
    const struct metric *metric = partition_column_metric(partition, slot->column);
    uint32_t id = slot->series;
    if (metric->lanes)
        id = ((const struct lane *)pool_at(&metric->lane_pool, id))->series;
    const struct series *series = series_at(metric, id);
    uint64_t period = in->time / PERIOD_US;
    return series->live && period >= (uint64_t)series->next + RING;
}

/* Make whatever a good record needs: slots, series, copies of long values. As partition_prepare. */
static int make_room(struct partition *partition, struct batch *batch, struct record_in *in)
{
    struct record *record = pool_at(&partition->records, in->record);
    bool waiting = atomic_load_explicit(&partition->limits->waiting, memory_order_relaxed);
    for (uint32_t at = 0; at < in->count; at++) {
        struct attribute_in *attribute = &batch->attributes[in->first + at];
        if (attribute->slot == NO_SLOT) /* the same name may have come a moment ago */
            attribute->slot = find_slot(partition, record, at, attribute, in->struct_length);
        if (attribute->is_nil) {
            if (attribute->slot != NO_SLOT)
                sweep_later(partition, in->record);
            continue;
        }
        if (attribute->slot == NO_SLOT) {
            attribute->slot = add_slot(partition, record, in, attribute);
            sweep_later(partition, in->record);
        }
        if (attribute->slot == NO_SLOT ||
            partition_bind_slot(partition, record, attribute->slot, attribute))
            return NO_MEMORY;
        if (attribute->is_sample && waiting &&
            would_close(partition, in, &record_slots(record)[attribute->slot]))
            return MUST_WAIT;
        if (attribute->value_length > INLINE_VALUE) {
            attribute->block = memory_get(partition->memory, attribute->value_length);
            if (attribute->block == NULL)
                return NO_MEMORY;
            memcpy(attribute->block, attribute->value, attribute->value_length);
        }
    }
    return 0;
}

/* Find a record's slots; true where every attribute has one. */
static bool match_slots(const struct partition *partition, struct batch *batch,
                        const struct record_in *in, struct record *record)
{
    bool all = true;
    uint32_t expected = 0;
    for (uint32_t at = 0; at < in->count; at++) {
        struct attribute_in *attribute = &batch->attributes[in->first + at];
        attribute->slot = record ? find_slot(partition, record, expected, attribute,
                                             in->struct_length)
                                 : NO_SLOT;
        all = all && attribute->slot != NO_SLOT;
        expected = attribute->slot == NO_SLOT ? expected : attribute->slot + 1u;
    }
    return all;
}

static bool sets_something(const struct batch *batch, const struct record_in *in)
{
    for (uint32_t at = 0; at < in->count; at++)
        if (!batch->attributes[in->first + at].is_nil)
            return true;
    return false;
}

static int prepare_record(struct partition *partition, struct batch *batch, struct record_in *in,
                          uint64_t now)
{
    if (in->record == NONE || !is_record(partition, pool_at(&partition->records, in->record), in))
        in->record = find_record(partition, in);
    struct record *record =
        in->record == NONE ? NULL : pool_at(&partition->records, in->record);
    if (in->removes) {
        in->rejection = check_names(batch, in, record != NULL);
        if (record != NULL)
            sweep_later(partition, in->record);
        return 0;
    }
    if (in->count > RECORD_SLOTS)
        in->rejection = LIMIT_ATTRIBUTES;
    else if (!match_slots(partition, batch, in, record) || record == NULL)
        in->rejection = check_names(batch, in, record != NULL);
    if (!in->rejection && !batch->restores)
        in->rejection = check_samples(partition, batch, in, record, now);
    if (!in->rejection && !batch->restores)
        in->rejection = check_limits(partition, batch, in, record);
    if (in->rejection)
        return 0;
    if (record == NULL) {
        if (!sets_something(batch, in))
            return 0;
        in->record = make_record(partition, in);
        if (in->record == NONE)
            return NO_MEMORY;
    }
    return make_room(partition, batch, in);
}

/* Where records will be read from memory, ask for it before it is needed: first the slots of the
 * index, then the records, then their keys, each a wave over several records. */
static void fetch_ahead(struct partition *partition, struct batch *batch, const uint32_t *order,
                        uint32_t count)
{
    for (uint32_t at = 0; at < count; at++)
        index_prefetch(&partition->record_index, batch->records[order[at]].hash);
    for (uint32_t at = 0; at < count; at++) {
        struct record_in *in = &batch->records[order[at]];
        uint32_t from = in->hash;
        in->record = index_next(&partition->record_index, in->hash, &from);
        if (in->record == NONE)
            continue;
        const uint8_t *cell = pool_at(&partition->records, in->record);
        __builtin_prefetch(cell);
        __builtin_prefetch(cell + sizeof(struct record) - 1);
    }
    for (uint32_t at = 0; at < count; at++) {
        const struct record_in *in = &batch->records[order[at]];
        if (in->record == NONE)
            continue;
        struct record *record = pool_at(&partition->records, in->record);
        __builtin_prefetch(record->key);
        __builtin_prefetch((const void *)((uintptr_t)record->key + 64)); /* it may end before */
        if (record->capacity > INLINE_SLOTS)
            __builtin_prefetch(record->outside);
    }
}

int partition_prepare(struct partition *partition, struct batch *batch, const uint32_t *order,
                      uint32_t count, uint64_t now)
{
    if (memory_reserve(partition->memory, &partition->sweep, sizeof *partition->sweep,
                       &partition->sweep_capacity, (size_t)partition->sweep_count + count))
        return NO_MEMORY;
    for (uint32_t first = 0; first < count; first += WAVE) {
        uint32_t wave = count - first < WAVE ? count - first : WAVE;
        fetch_ahead(partition, batch, order + first, wave);
        for (uint32_t at = first; at < first + wave; at++) {
            struct record_in *in = &batch->records[order[at]];
            if (in->rejection)
                continue;
            int status = prepare_record(partition, batch, in, now);
            if (status)
                return status;
        }
    }
    return 0;
}

