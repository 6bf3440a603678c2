/* records.c: the half of applying that can't fail, and what takes records away again. Values are
 * kept as the bytes they came in: short ones in the slot, long ones in a block of their own. */
#include "hash.h"
#include "partition.h"

#include <string.h>

enum {
    WAVE = 16,           /* records whose series are fetched ahead together */
    SWEEP_AT_ONCE = 1024, /* records */
    LEAVE_AT_ONCE = 4096, /* keys and records that are looked at */
    FEW_RECORDS = 8       /* of a key: with more of them all count as shared */
};

/* ---- slots ---------------------------------------------------------------------------------------- */

static uint8_t *long_value(const struct slot *slot, uint32_t *length)
{
    uint8_t *block;
    memcpy(&block, slot->bytes, sizeof block);
    memcpy(length, slot->bytes + sizeof block, sizeof *length);
    return block;
}

const uint8_t *record_value(const struct slot *slot, uint32_t *length)
{
    if (slot->length == LONG_VALUE)
        return long_value(slot, length);
    *length = slot->length;
    return slot->bytes;
}

static void clear_value(struct partition *partition, const struct record *record,
                        struct slot *slot)
{
    if (slot->length == LONG_VALUE) {
        uint32_t length;
        uint8_t *block = long_value(slot, &length);
        memory_free(partition->memory, block, length);
        holding_of(partition, record)->bytes -= length;
    }
    slot->length = 0;
}

static bool is_held(const struct slot *slot, const struct attribute_in *in)
{
    uint32_t length;
    const uint8_t *held = record_value(slot, &length);
    return length == in->value_length && memcmp(held, in->value, length) == 0;
}

static void set_value(struct partition *partition, const struct record *record, struct slot *slot,
                      struct attribute_in *in)
{
    clear_value(partition, record, slot);
    if (in->block == NULL) {
        memcpy(slot->bytes, in->value, in->value_length);
        slot->length = (uint8_t)in->value_length;
        return;
    }
    memcpy(slot->bytes, &in->block, sizeof in->block);
    memcpy(slot->bytes + sizeof in->block, &in->value_length, sizeof in->value_length);
    slot->length = LONG_VALUE;
    in->block = NULL;
    holding_of(partition, record)->bytes += in->value_length;
}

/* Samples will not come through this slot again. */
static void unbind_slot(struct partition *partition, struct slot *slot)
{
    struct metric *metric = partition_column_metric(partition, slot->column);
    if (slot->series != NONE && metric != NULL && metric->lanes) {
        struct lane *lane = pool_at(&metric->lane_pool, slot->series);
        lane->attached = false;
        series_lanes(metric, series_at(metric, lane->series))[1]++;
    }
    slot->series = NONE;
}

/* ---- commit --------------------------------------------------------------------------------------------- */

static void add_sample(struct partition *partition, const struct record_in *in,
                       const struct slot *slot, const struct attribute_in *attribute)
{
    int32_t number = names_at(&partition->columns, slot->column)->tag;
    struct lane *lane = NULL;
    uint32_t id = slot->series;
    if (partition->metrics[number].lanes) {
        lane = pool_at(&partition->metrics[number].lane_pool, id);
        id = lane->series;
    }
    series_add(partition, (uint32_t)number, id, lane, attribute->sample, attribute->is_real,
               (uint32_t)(in->time / PERIOD_US), (uint32_t)(in->time % PERIOD_US));
}

static void note_record(struct partition *partition, struct record *record, unsigned lists)
{
    unsigned fresh = 0;
    for (unsigned list = 0; list < LISTS; list++)
        if (lists & partition->watching & 1u << list &&
            record->stamps[list] != partition->rounds[list]) {
            record->stamps[list] = partition->rounds[list];
            fresh |= 1u << list;
        }
    if (fresh)
        partition_note(partition, fresh, record->key->id, record->struct_name);
}

/* The lists that a record belongs on which comes, or of which a value goes: it may be the last. */
static unsigned struct_lists(const struct partition *partition, const struct record *record)
{
    return TO_ANNOUNCED |
           (names_at(&partition->structs, record->struct_name)->number ? TO_OBSERVED : 0u);
}

/* The lists that a record belongs on if a value becomes that of `in`; NULL: if it goes. */
static unsigned column_lists(const struct partition *partition, const struct record *record,
                             const struct slot *slot, const struct attribute_in *in)
{
    bool is_news = partition->watching & TO_OBSERVED &&
                   record->stamps[OBSERVED] != partition->rounds[OBSERVED];
    const struct observed_name *observed =
        is_news ? partition_column_observed(partition, slot->column) : NULL;
    if (observed == NULL)
        return TO_ANNOUNCED;
    uint32_t length;
    const uint8_t *held = record_value(slot, &length);
    double before, now;
    bool real;
    bool may_wait = observed->count > 0 && in != NULL && length > 0 &&
                    msgpack_number(held, length, &before, &real) &&
                    msgpack_number(in->value, in->value_length, &now, &real) &&
                    !record->shared && /* else the view shows what becomes of several values */
                    !observed_crosses(observed, before, now);
    return may_wait ? TO_ANNOUNCED : TO_ANNOUNCED | TO_OBSERVED;
}

/* Returns the lists to note it in. */
static unsigned commit_attribute(struct partition *partition, const struct record_in *in,
                                 struct record *record, struct attribute_in *attribute)
{
    if (attribute->slot == NO_SLOT)
        return 0;
    struct slot *slot = &record_slots(record)[attribute->slot];
    if (attribute->is_nil) {
        bool was_there = slot->length != 0;
        unsigned lists =
            column_lists(partition, record, slot, NULL) | struct_lists(partition, record);
        clear_value(partition, record, slot);
        return was_there ? lists : 0;
    }
    unsigned lists = 0;
    if (!is_held(slot, attribute)) {
        lists = column_lists(partition, record, slot, attribute);
        set_value(partition, record, slot, attribute);
    }
    if (attribute->is_sample)
        add_sample(partition, in, slot, attribute);
    return lists;
}

/* Returns whether it had values. */
static bool clear_record(struct partition *partition, struct record *record)
{
    struct slot *slots = record_slots(record);
    bool had = false;
    for (unsigned at = 0; at < record->count; at++) {
        had |= slots[at].length != 0;
        clear_value(partition, record, &slots[at]);
    }
    return had;
}

static bool is_empty(struct record *record)
{
    const struct slot *slots = record_slots(record);
    for (unsigned at = 0; at < record->count; at++)
        if (slots[at].length != 0)
            return false;
    return true;
}

static void commit_record(struct partition *partition, struct batch *batch,
                          const struct record_in *in)
{
    struct record *record = pool_at(&partition->records, in->record);
    unsigned lists =
        in->removes && clear_record(partition, record) ? struct_lists(partition, record) : 0;
    bool is_new = partition->watching & TO_OBSERVED && is_empty(record);
    for (uint32_t at = 0; at < in->count; at++)
        lists |= commit_attribute(partition, in, record, &batch->attributes[in->first + at]);
    if (lists)
        note_record(partition, record, is_new ? lists | struct_lists(partition, record) : lists);
}

/* Ask for the memory of the series that a record's samples go to. The cells' size is no multiple of
 * a cache line's, so that a header may lie on two. */
static void fetch_series(struct partition *partition, const struct batch *batch,
                         const struct record_in *in)
{
    uint32_t period = (uint32_t)(in->time / PERIOD_US);
    const struct slot *slots = record_slots(pool_at(&partition->records, in->record));
    for (uint32_t at = 0; at < in->count; at++) {
        const struct attribute_in *attribute = &batch->attributes[in->first + at];
        if (!attribute->is_sample)
            continue;
        const struct slot *slot = &slots[attribute->slot];
        const struct metric *metric = partition_column_metric(partition, slot->column);
        if (metric->lanes)
            continue; /* the slot knows the lane, which knows the series */
        uint8_t *series = pool_at(&metric->pool, slot->series);
        __builtin_prefetch(series, 1);
        __builtin_prefetch(series + sizeof(struct series) - 1, 1);
        __builtin_prefetch(series + metric->bins + period % RING * sizeof(struct bin), 1);
    }
}

static bool is_to_commit(const struct record_in *in)
{
    return !in->rejection && in->record != NONE;
}

void partition_commit(struct partition *partition, struct batch *batch, const uint32_t *order,
                      uint32_t count)
{
    for (uint32_t first = 0; first < count; first += WAVE) {
        uint32_t end = count - first < WAVE ? count : first + WAVE;
        for (uint32_t at = first; at < end; at++)
            if (is_to_commit(&batch->records[order[at]]))
                fetch_series(partition, batch, &batch->records[order[at]]);
        for (uint32_t at = first; at < end; at++)
            if (is_to_commit(&batch->records[order[at]]))
                commit_record(partition, batch, &batch->records[order[at]]);
    }
}

/* ---- sweep ---------------------------------------------------------------------------------------------- */

/* Close the gaps that absent values left. */
static void compact(struct partition *partition, struct record *record)
{
    struct slot *slots = record_slots(record);
    unsigned kept = 0;
    for (unsigned at = 0; at < record->count; at++) {
        if (slots[at].length == 0) {
            unbind_slot(partition, &slots[at]);
            names_drop(&partition->columns, slots[at].column);
        } else {
            slots[kept++] = slots[at];
        }
    }
    record->count = kept & 0x7fff;
}

static bool is_shared(const struct partition *partition, const struct key *key,
                      const struct record *record)
{
    for (uint32_t id = key->first_record; id != NONE;) {
        const struct record *other = pool_at(&partition->records, id);
        if (other != record && other->struct_name == record->struct_name)
            return true;
        id = other->next;
    }
    return false;
}

void partition_mark_shared(struct partition *partition, struct key *key, uint32_t added)
{
    if (added != NONE && key->record_count > FEW_RECORDS + 1) {
        ((struct record *)pool_at(&partition->records, added))->shared = true;
        return;
    }
    if (key->record_count > FEW_RECORDS + 1)
        return; /* they are marked, all of them */
    bool many = key->record_count > FEW_RECORDS;
    for (uint32_t id = key->first_record; id != NONE;) {
        struct record *record = pool_at(&partition->records, id);
        record->shared = many || is_shared(partition, key, record);
        id = record->next;
    }
}

static uint32_t record_hash(const struct partition *partition, const struct record *record)
{
    const struct name *struct_name = names_at(&partition->structs, record->struct_name);
    const struct name *source = names_at(&partition->sources, record->source);
    return hash_record(record->key->hash, struct_name->hash, source->hash);
}

void partition_free_slots(struct partition *partition, struct record *record)
{
    (void)clear_record(partition, record);
    if (record->capacity > INLINE_SLOTS) {
        size_t bytes = record->capacity * sizeof(struct slot);
        memory_free(partition->memory, record->outside, bytes);
        holding_of(partition, record)->bytes -= bytes;
    }
}

static void free_record(struct partition *partition, uint32_t id)
{
    struct record *record = pool_at(&partition->records, id);
    struct key *key = record->key;
    index_remove(&partition->record_index, record_hash(partition, record), id);
    if (record->previous == NONE)
        key->first_record = record->next;
    else
        ((struct record *)pool_at(&partition->records, record->previous))->next = record->next;
    if (record->next != NONE)
        ((struct record *)pool_at(&partition->records, record->next))->previous =
            record->previous;
    partition_free_slots(partition, record);
    struct holding *holding = holding_of(partition, record);
    holding->bytes -= sizeof *record;
    holding->records--;
    names_drop(&partition->structs, record->struct_name);
    names_at(&partition->sources, record->source)->tag--;
    names_drop(&partition->sources, record->source);
    pool_give(&partition->records, id);
    atomic_fetch_sub_explicit(&partition->limits->held_records, 1, memory_order_relaxed);
    if (--key->record_count == 0)
        partition_release_key(partition, key);
    else
        partition_mark_shared(partition, key, NONE);
}

bool partition_sweep(struct partition *partition)
{
    for (unsigned done = 0; done < SWEEP_AT_ONCE && partition->sweep_count > 0; done++) {
        uint32_t id = partition->sweep[--partition->sweep_count];
        struct record *record = pool_at(&partition->records, id);
        record->swept = false;
        compact(partition, record);
        if (record->count == 0)
            free_record(partition, id);
    }
    if (partition->sweep_count > 0)
        return false;
    partition_recycle(partition);
    return true;
}

/* The key may go with its last record. Returns how many were looked at. */
static uint32_t remove_leaving_of(struct partition *partition, struct key *key)
{
    uint32_t looked = 0;
    for (uint32_t id = key->first_record; id != NONE; looked++) {
        struct record *record = pool_at(&partition->records, id);
        uint32_t next = record->next;
        if (holding_of(partition, record)->leaving) {
            if (clear_record(partition, record))
                note_record(partition, record, struct_lists(partition, record));
            compact(partition, record);
            free_record(partition, id);
        }
        id = next;
    }
    return looked;
}

bool partition_remove_leaving(struct partition *partition, uint32_t *cursor)
{
    uint32_t looked = 0;
    for (; *cursor < partition->keys.count && looked < LEAVE_AT_ONCE; ++*cursor) {
        struct key *key = partition->keys.entries[*cursor];
        looked += 1 + (key != NULL && !key->gone ? remove_leaving_of(partition, key) : 0);
    }
    return *cursor >= partition->keys.count;
}

void partition_release_key(struct partition *partition, struct key *key)
{
    for (uint32_t id = key->first_series, of = key->first_metric; id != NONE;) {
        const struct series *series = series_at(&partition->metrics[of], id);
        if (series->live)
            return;
        id = series->sibling;
        of = series->sibling_metric;
    }
    while (key->first_series != NONE)
        series_free(partition, key->first_metric, key->first_series);
    names_drop(&partition->tables, key->table);
    keys_remove(&partition->keys, key);
    atomic_fetch_sub_explicit(&partition->limits->held_keys, 1, memory_order_relaxed);
}

void partition_unbind(struct partition *partition, uint32_t number)
{
    for (uint32_t id = 0; id < partition->keys.count; id++) {
        const struct key *key = partition->keys.entries[id];
        for (uint32_t at = key && !key->gone ? key->first_record : NONE; at != NONE;) {
            struct record *record = pool_at(&partition->records, at);
            for (unsigned slot = 0; slot < record->count; slot++) {
                struct slot *one = &record_slots(record)[slot];
                if (names_at(&partition->columns, one->column)->tag == (int32_t)number)
                    unbind_slot(partition, one);
            }
            at = record->next;
        }
    }
}
