/* save.c: the state of an engine as bytes; snapshot.h tells what they mean. Batches wait while a
 * partition is written, so what counts is time: room is made once for a series, not for each value,
 * and memory is asked for before it is needed. */
#include "snapshot.h"

enum {
    KEY_AHEAD = 16,   /* keys whose memory is asked for ahead */
    SERIES_AHEAD = 8, /* keys whose records and series are, when the key itself has come */
    LINE = 64,
    SERIES_ROOM = 1400, /* all of a series but its lanes */
    LANE_ROOM = 128,
    NUMBER_ROOM = 9, /* of any number */
    SLOT_ROOM = 2 * MSGPACK_HEAD_ROOM + INLINE_VALUE
};

_Static_assert(SERIES_ROOM >= 3 * MSGPACK_HEAD_ROOM + SERIES_FIELDS * NUMBER_ROOM +
                                  ALGORITHMS * DETECTOR_BYTES +
                                  RING * (BIN_FIELDS + BIN_EXTREMES) * NUMBER_ROOM,
               "all of a series fits");
_Static_assert(LANE_ROOM >= 3 * MSGPACK_HEAD_ROOM + RING * (MSGPACK_HEAD_ROOM + NUMBER_ROOM),
               "all of a lane fits");

struct saving {
    const struct engine *engine;
    const struct partition *partition;
    struct msgpack_writer *writer;
    uint64_t steady; /* milliseconds */
    int64_t period;
};

/* ---- what others refer to ------------------------------------------------------------------------- */

static void save_names(const struct names *names, struct msgpack_writer *writer)
{
    msgpack_write_array(writer, names->count);
    for (uint32_t id = 0; id < names->count; id++) {
        const struct name *name = names_at(names, id);
        if (name != NULL && name->refs > 0)
            msgpack_write_str(writer, name->text, name->length);
        else
            msgpack_write_nil(writer);
    }
}

static void save_algorithm(const struct algorithm *algorithm, struct msgpack_writer *writer)
{
    msgpack_write_array(writer, ALGORITHM_FIELDS);
    msgpack_write_str(writer, algorithm->name, strlen(algorithm->name));
    msgpack_write_uint(writer, algorithm->timeout);
    msgpack_write_str(writer, algorithm->reducer->name, strlen(algorithm->reducer->name));
    msgpack_write_str(writer, algorithm->detector->name, strlen(algorithm->detector->name));
    msgpack_write_double(writer, algorithm->alpha);
}

/* Each partition tells its metrics: they may be configured anew between one and the next. */
static void save_metrics(const struct partition *partition, struct msgpack_writer *writer)
{
    msgpack_write_array(writer, partition->metric_count);
    for (uint32_t number = 0; number < partition->metric_count; number++) {
        const struct metric *metric = &partition->metrics[number];
        if (metric->name_length == 0) {
            msgpack_write_nil(writer);
            continue;
        }
        msgpack_write_array(writer, 1 + (uint32_t)metric->algorithm_count);
        msgpack_write_str(writer, metric->name, metric->name_length);
        for (unsigned at = 0; at < metric->algorithm_count; at++)
            save_algorithm(&metric->algorithms[at], writer);
    }
}

/* How far the partition has come: a source is resent what some other partition has not, and there
 * this one is ahead of what all have. */
static uint64_t position(const struct engine *engine, uint32_t number, uint32_t id)
{
    const struct source *source = &engine->sources[id];
    const struct replay *replay = &engine->replay;
    if (source->seq >= source->ahead || replay->seqs == NULL || id >= replay->sources ||
        replay->partitions != engine->partition_count)
        return source->seq;
    uint64_t seq = replay->seqs[(size_t)number * replay->sources + id];
    return seq > source->seq ? seq : source->seq;
}

static void save_positions(const struct engine *engine, uint32_t number,
                           struct msgpack_writer *writer)
{
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (uint32_t id = 0; id < engine->source_names.count; id++) {
        if (!engine_knows(engine, id) || !engine->sources[id].numbered)
            continue;
        msgpack_write_uint(writer, id);
        msgpack_write_uint(writer, engine->sources[id].epoch);
        msgpack_write_uint(writer, position(engine, number, id));
        written += 3;
    }
    msgpack_close_array(writer, opened, written);
}

/* ---- records ---------------------------------------------------------------------------------------- */

static struct record *record_at(const struct saving *saving, uint32_t id)
{
    return pool_at(&saving->partition->records, id);
}

/* How many values of a record are saved: none, where its source is gone and it is about to go. */
static uint32_t values_of(const struct saving *saving, struct record *record)
{
    const struct slot *slots = record_slots(record);
    const struct name *source = names_at(&saving->partition->sources, record->source);
    uint32_t values = 0;
    for (unsigned at = 0; at < record->count; at++)
        values += slots[at].length != 0;
    return saving->engine->limits.holdings[source->number].leaving ? 0 : values;
}

static void save_record(const struct saving *saving, struct record *record, uint32_t values)
{
    struct msgpack_writer *writer = saving->writer;
    const struct slot *slots = record_slots(record);
    uint8_t *at = msgpack_room(writer, 3 * MSGPACK_HEAD_ROOM);
    if (at == NULL)
        return;
    at = msgpack_put_array(at, 2 + 2 * values);
    at = msgpack_put_uint(at, record->struct_name);
    msgpack_fill(writer, msgpack_put_uint(at, record->source));
    for (unsigned slot = 0; slot < record->count; slot++) {
        if (slots[slot].length == 0)
            continue;
        uint32_t length;
        const uint8_t *value = record_value(&slots[slot], &length);
        at = msgpack_room(writer, SLOT_ROOM + length);
        if (at == NULL)
            return;
        at = msgpack_put_uint(at, slots[slot].column);
        memcpy(at, value, length);
        msgpack_fill(writer, at + length);
    }
}

static void save_records(const struct saving *saving, const struct key *key)
{
    uint32_t count = 0;
    for (uint32_t id = key->first_record; id != NONE; id = record_at(saving, id)->next)
        count += values_of(saving, record_at(saving, id)) > 0;
    msgpack_write_array(saving->writer, count);
    for (uint32_t id = key->first_record; id != NONE; id = record_at(saving, id)->next) {
        struct record *record = record_at(saving, id);
        uint32_t values = values_of(saving, record);
        if (values > 0)
            save_record(saving, record, values);
    }
}

/* ---- series ----------------------------------------------------------------------------------------- */

static inline uint8_t *put_age(uint8_t *at, const struct saving *saving, uint32_t arrival)
{
    uint64_t then = saving->partition->base + arrival;
    return msgpack_put_uint(at, saving->steady > then ? saving->steady - then : 0);
}

/* The open periods that have samples, by how far they lie behind `next`. */
static uint8_t *put_bins(uint8_t *at, const struct saving *saving, const struct metric *metric,
                         const struct series *series, uint32_t open)
{
    uint32_t fields = BIN_FIELDS + (metric->extremes ? BIN_EXTREMES : 0), filled = 0;
    for (uint32_t period = 0; period < open; period++)
        filled += series_bins(metric, series)[(series->next + period) % RING].count > 0;
    at = msgpack_put_array(at, filled * fields);
    for (uint32_t period = 0; period < open; period++) {
        unsigned slot = (series->next + period) % RING;
        const struct bin *bin = &series_bins(metric, series)[slot];
        if (bin->count == 0)
            continue;
        at = msgpack_put_uint(at, period);
        at = msgpack_put_number(at, bin->sum);
        at = msgpack_put_uint(at, bin->count);
        at = put_age(at, saving, bin->arrival);
        if (metric->extremes) {
            at = msgpack_put_number(at, series_extremes(metric, series)[slot].least);
            at = msgpack_put_number(at, series_extremes(metric, series)[slot].greatest);
        }
    }
    return at;
}

/* Bits of slots as bits of periods behind `next`. */
static uint8_t turned(uint32_t slots, const struct series *series)
{
    unsigned by = series->next % RING;
    return (uint8_t)((slots & 0xff) >> by | slots << (RING - by));
}

static void save_lane(const struct saving *saving, const struct series *series,
                      const struct lane *lane)
{
    uint8_t *at = msgpack_room(saving->writer, LANE_ROOM);
    if (at == NULL)
        return;
    uint8_t filled = turned(lane->filled, series);
    at = msgpack_put_array(at, 2 + 2 * (uint32_t)__builtin_popcount(filled));
    at = msgpack_put_uint(at, lane->source);
    at = msgpack_put_uint(at, filled);
    for (unsigned period = 0; period < RING; period++) {
        unsigned slot = (series->next + period) % RING;
        if (!(filled & 1u << period))
            continue;
        at = msgpack_put_uint(at, lane->offset[slot]);
        at = msgpack_put_number(at, lane->value[slot]);
    }
    msgpack_fill(saving->writer, at);
}

/* The lanes that have samples; the others are made again when samples come. */
static void save_lanes(const struct saving *saving, const struct metric *metric,
                       const struct series *series)
{
    const uint32_t *lanes = series_lanes(metric, series);
    uint32_t filled = 0;
    for (uint32_t id = *lanes; id != NONE;) {
        const struct lane *lane = pool_at(&metric->lane_pool, id);
        filled += lane->filled != 0;
        id = lane->next;
    }
    msgpack_write_uint(saving->writer, turned(lanes[2], series));
    msgpack_write_array(saving->writer, filled);
    for (uint32_t id = *lanes; id != NONE;) {
        const struct lane *lane = pool_at(&metric->lane_pool, id);
        if (lane->filled)
            save_lane(saving, series, lane);
        id = lane->next;
    }
}

static void save_series(const struct saving *saving, uint32_t number, const struct series *series)
{
    const struct metric *metric = &saving->partition->metrics[number];
    uint8_t *at = msgpack_room(saving->writer, SERIES_ROOM);
    if (at == NULL)
        return;
    uint32_t fields = metric->lanes ? LANED_FIELDS : SERIES_FIELDS;
    at = msgpack_put_array(at, series->live ? fields : ASLEEP_FIELDS);
    at = msgpack_put_uint(at, number);
    at = msgpack_put_int(at, (int64_t)series->next - saving->period);
    if (!series->live) {
        msgpack_fill(saving->writer, at);
        return;
    }
    uint32_t open = series_has_open(series) ? series->newest - series->next + 1 : 0;
    at = msgpack_put_uint(at, open);
    at = put_age(at, saving, series->carry);
    at = put_age(at, saving, series->arrival);
    at = msgpack_put_uint(at, series->live);
    at = msgpack_put_uint(at, series->started);
    at = msgpack_put_uint(at, series->empty);
    at = msgpack_put_uint(at, series->real != 0);
    uint32_t size = series_states_size(metric);
    at = msgpack_put_bin(at, size);
    memcpy(at, series_states(series), size);
    msgpack_fill(saving->writer, put_bins(at + size, saving, metric, series, open));
    if (metric->lanes)
        save_lanes(saving, metric, series);
}

static void save_all_series(const struct saving *saving, const struct key *key)
{
    const struct metric *metrics = saving->partition->metrics;
    uint32_t count = 0;
    for (uint32_t id = key->first_series, of = key->first_metric; id != NONE; count++) {
        const struct series *series = series_at(&metrics[of], id);
        id = series->sibling;
        of = series->sibling_metric;
    }
    msgpack_write_array(saving->writer, count);
    for (uint32_t id = key->first_series, of = key->first_metric; id != NONE;) {
        const struct series *series = series_at(&metrics[of], id);
        save_series(saving, of, series);
        id = series->sibling;
        of = series->sibling_metric;
    }
}

/* ---- keys ------------------------------------------------------------------------------------------- */

static void fetch(const void *start, size_t bytes)
{
    for (size_t at = 0; at < bytes + LINE - 1; at += LINE)
        __builtin_prefetch((const uint8_t *)start + (at < bytes ? at : bytes - 1));
}

/* Ask for the memory of keys to come, and then for what they point to. */
static void fetch_ahead(const struct partition *partition, uint32_t id)
{
    const struct keys *keys = &partition->keys;
    if (id + KEY_AHEAD < keys->count && keys->entries[id + KEY_AHEAD] != NULL)
        fetch(keys->entries[id + KEY_AHEAD], 2 * LINE);
    const struct key *key =
        id + SERIES_AHEAD < keys->count ? keys->entries[id + SERIES_AHEAD] : NULL;
    if (key == NULL || key->gone)
        return;
    if (key->first_record != NONE)
        fetch(pool_at(&partition->records, key->first_record), sizeof(struct record));
    if (key->first_series != NONE) {
        const struct metric *metric = &partition->metrics[key->first_metric];
        fetch(series_at(metric, key->first_series), metric->pool.cell);
    }
}

static void save_keys(const struct saving *saving)
{
    const struct keys *keys = &saving->partition->keys;
    msgpack_write_array(saving->writer, keys->live);
    for (uint32_t id = 0; id < keys->count; id++) {
        const struct key *key = keys->entries[id];
        fetch_ahead(saving->partition, id);
        if (key == NULL || key->gone)
            continue;
        msgpack_write_array(saving->writer, KEY_FIELDS);
        msgpack_write_str(saving->writer, key->text, key->length);
        save_records(saving, key);
        save_all_series(saving, key);
    }
}

/* ---- partitions, and the head ------------------------------------------------------------------------ */

/* Whether a snapshot can tell how far each source has come. While one is resent what some of the
 * partitions of the last run have already, it can only if they are those of this run. */
static bool knows_positions(struct engine *engine)
{
    struct replay *replay = &engine->replay;
    if (replay->behind == 0 || replay->partitions == engine->partition_count)
        return true;
    for (uint32_t id = 0; id < engine->source_names.count; id++) {
        struct source *source = &engine->sources[id];
        /* One that is gone may never come. If it does, it tells all of its state anyhow; what some
         * partition has counts as what all have, so that nothing is counted twice. */
        if (engine_knows(engine, id) && source->gone && source->ahead > source->seq) {
            uint64_t ahead = source->ahead;
            engine_end_replay(engine, source);
            source->seq = ahead;
        }
    }
    return replay->behind == 0;
}

bool engine_begin_save(struct engine *engine)
{
    pthread_mutex_lock(&engine->ingest);
    bool can = !engine->saving && knows_positions(engine);
    for (uint32_t id = 0; can && id < engine->source_names.count; id++) {
        struct source *source = &engine->sources[id];
        source->saving_epoch = source->epoch;
        source->saving_seq = source->seq;
    }
    if (can)
        engine->saving = engine->copying = true;
    pthread_mutex_unlock(&engine->ingest);
    return can;
}

static void freeze(struct partition *partition, bool frozen)
{
    pthread_mutex_lock(&partition->lock);
    partition->frozen = frozen;
    pthread_mutex_unlock(&partition->lock);
}

void engine_save_partition(struct engine *engine, uint32_t number, struct moment now,
                           struct msgpack_writer *writer)
{
    struct partition *partition = &engine->partitions[number];
    const struct saving saving = {engine, partition, writer, now.steady / 1000,
                                  (int64_t)(now.wall / PERIOD_US)};
    pthread_mutex_lock(&engine->ingest);
    freeze(partition, true);
    msgpack_write_array(writer, PARTITION_FIELDS);
    msgpack_write_uint(writer, number);
    msgpack_write_uint(writer, now.wall);
    save_metrics(partition, writer);
    save_names(&partition->structs, writer);
    save_names(&partition->sources, writer);
    save_names(&partition->columns, writer);
    save_positions(engine, number, writer);
    save_keys(&saving);
    freeze(partition, false);
    pthread_mutex_unlock(&engine->ingest);
}

/* In the order of their ids: who brings them back looks for them in that order. */
static void save_sources(const struct engine *engine, struct msgpack_writer *writer)
{
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (uint32_t id = 0; id < engine->source_names.count; id++) {
        const struct source *source = &engine->sources[id];
        if (!engine_knows(engine, id))
            continue;
        const struct name *name = names_at(&engine->source_names, id);
        msgpack_write_array(writer, SOURCE_FIELDS);
        msgpack_write_uint(writer, id);
        msgpack_write_str(writer, name->text, name->length);
        msgpack_write_uint(writer, source->last_seen);
        msgpack_write_uint(writer, (source->numbered ? SOURCE_NUMBERED : 0) |
                                       (source->bereft ? SOURCE_BEREFT : 0));
        msgpack_write_uint(writer, source->returned_seq);
        msgpack_write_uint(writer, source->epoch);
        msgpack_write_uint(writer, source->ahead > source->seq ? source->ahead : source->seq);
        written++;
    }
    msgpack_close_array(writer, opened, written);
}

static void save_gone(const struct engine *engine, struct msgpack_writer *writer)
{
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (uint32_t id = engine->oldest_gone; id != NONE; id = engine->sources[id].newer) {
        msgpack_write_uint(writer, id);
        written++;
    }
    msgpack_close_array(writer, opened, written);
}

static void save_aggtypes(const struct engine *engine, struct msgpack_writer *writer)
{
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (uint32_t id = 0; id < engine->aggtypes.count; id++) {
        const struct name *name = names_at(&engine->aggtypes, id);
        if (name == NULL || name->tag < 0)
            continue;
        const struct name *text = names_at(&engine->aggtype_texts, (uint32_t)name->tag);
        msgpack_write_str(writer, name->text, name->length);
        msgpack_write_str(writer, text->text, text->length);
        written += 2;
    }
    msgpack_close_array(writer, opened, written);
}

void engine_save_head(struct engine *engine, struct moment now, struct msgpack_writer *writer)
{
    pthread_mutex_lock(&engine->ingest);
    msgpack_write_array(writer, HEAD_FIELDS);
    msgpack_write_uint(writer, SNAPSHOT_FORMAT);
    msgpack_write_uint(writer, engine->partition_count);
    msgpack_write_uint(writer, now.wall);
    save_sources(engine, writer);
    save_gone(engine, writer);
    save_aggtypes(engine, writer);
    engine->copying = false; /* what is left is to get it to the disk, which may take its time */
    pthread_mutex_unlock(&engine->ingest);
}

/* What the source had when the snapshot was begun is saved, if it is still the same run of it. */
static bool make_durable(struct source *source)
{
    bool advances = source->numbered && source->epoch == source->saving_epoch &&
                    source->saving_seq > source->durable;
    if (advances)
        source->durable = source->saving_seq;
    return advances;
}

void engine_end_save(struct engine *engine, bool durable)
{
    pthread_mutex_lock(&engine->ingest);
    for (uint32_t id = 0; durable && id < engine->source_names.count; id++)
        if (engine_knows(engine, id) && make_durable(&engine->sources[id]))
            engine->untold = true;
    engine->saving = engine->copying = false;
    names_recycle(&engine->source_names, &engine->memory);
    pthread_mutex_unlock(&engine->ingest);
}
