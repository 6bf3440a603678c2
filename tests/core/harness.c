#include "harness.h"

#include "hash.h"

/* Not an engine's: what tests allocate for themselves. */
static struct memory *tests_memory(void)
{
    static struct memory memory;
    if (memory.resize == NULL)
        memory_init(&memory);
    return &memory;
}

char check_context[128];

void check_failed(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: not so: %s %s\n", file, line, condition, check_context);
    abort();
}

/* ---- memory that fails ------------------------------------------------------------------------- */

void *resize_or_fail(void *context, void *block, size_t size)
{
    struct faults *faults = context;
    faults->asked++;
    bool fails = faults->ever_after ? faults->asked >= faults->first
                                    : faults->asked == faults->first;
    if (faults->first && fails) {
        faults->refused++;
        return NULL;
    }
    return realloc(block, size);
}

void faults_begin(struct faults *faults, uint64_t first, bool ever_after)
{
    *faults = (struct faults){.first = first, .ever_after = ever_after};
}

bool faults_end(struct faults *faults)
{
    faults->first = 0;
    return faults->refused > 0;
}

/* ---- messages ------------------------------------------------------------------------------------ */

struct msgpack_writer new_writer(void)
{
    return (struct msgpack_writer){.memory = tests_memory()};
}

void write_text(struct msgpack_writer *writer, const char *text)
{
    size_t length = strlen(text);
    if (length < 32) {
        msgpack_write_str(writer, text, length);
        return;
    }
    uint8_t head[] = {0xda, (uint8_t)(length >> 8), (uint8_t)length};
    msgpack_write_raw(writer, head, sizeof head);
    msgpack_write_raw(writer, text, length);
}

void write_natural(struct msgpack_writer *writer, const char *name, uint64_t value)
{
    write_text(writer, name);
    msgpack_write_uint(writer, value);
}

struct msgpack_writer open_batch(const char *source, uint64_t epoch, uint64_t seq,
                                 uint32_t records)
{
    struct msgpack_writer writer = new_writer();
    msgpack_write_map(&writer, seq ? 4 : 2);
    if (seq) {
        write_natural(&writer, "seq", seq);
        write_natural(&writer, "epoch", epoch);
    }
    write_text(&writer, "source");
    write_text(&writer, source);
    write_text(&writer, "records");
    msgpack_write_array(&writer, records);
    return writer;
}

void open_record(struct msgpack_writer *writer, const char *key, const char *struct_name,
                 uint32_t attributes, bool timed)
{
    msgpack_write_array(writer, timed ? 4 : 3);
    write_text(writer, key);
    write_text(writer, struct_name);
    msgpack_write_map(writer, attributes);
}

enum outcome_status apply(struct engine *engine, struct msgpack_writer *writer, uint64_t now)
{
    struct outcome outcome;
    struct message message = {(const char *)writer->bytes, writer->length, NULL};
    engine_apply(engine, &message, 1, both(now), &outcome);
    msgpack_writer_free(writer);
    return outcome.status;
}

enum outcome_status apply_one(struct engine *engine, const char *source, const char *key,
                              const char *struct_name, const char *attribute, uint64_t value,
                              uint64_t now)
{
    struct msgpack_writer writer = open_batch(source, 0, 0, 1);
    open_record(&writer, key, struct_name, 1, false);
    write_natural(&writer, attribute, value);
    return apply(engine, &writer, now);
}

/* ---- metrics --------------------------------------------------------------------------------------- */

struct metric new_metric(const char *name, const struct specification *algorithms, unsigned count)
{
    struct metric metric = {.name_length = (uint16_t)strlen(name),
                            .algorithm_count = (uint16_t)count};
    snprintf(metric.name, sizeof metric.name, "%s", name);
    for (unsigned at = 0; at < count; at++) {
        struct algorithm *algorithm = &metric.algorithms[at];
        const struct specification *given = &algorithms[at];
        snprintf(algorithm->name, sizeof algorithm->name, "%s%s%g", given->reducer,
                 given->detector, given->alpha);
        algorithm->reducer = reducer_named(given->reducer);
        algorithm->detector = detector_named(given->detector);
        algorithm->alpha = given->alpha;
        algorithm->timeout = given->timeout;
        CHECK(algorithm->reducer != NULL && algorithm->detector != NULL);
    }
    metric_layout(&metric);
    return metric;
}

/* ---- dump ---------------------------------------------------------------------------------------------- */

struct slice {
    const uint8_t *bytes;
    size_t length;
};

static int compare_slices(const void *left, const void *right)
{
    const struct slice *one = left, *other = right;
    size_t shorter = one->length < other->length ? one->length : other->length;
    int order = memcmp(one->bytes, other->bytes, shorter);
    return order ? order : (one->length > other->length) - (one->length < other->length);
}

static struct msgpack_head open_whole(struct msgpack_reader *reader, enum msgpack_type type)
{
    struct msgpack_head head = {0};
    CHECK(msgpack_read(reader, &head) == MSGPACK_OK && head.type == type);
    return head;
}

static void append_elements(struct msgpack_writer *writer, struct msgpack_reader *reader)
{
    uint32_t count = open_whole(reader, MSGPACK_ARRAY).length;
    struct slice *slices = calloc((size_t)count + 1, sizeof *slices);
    CHECK(slices != NULL);
    for (uint32_t at = 0; at < count; at++) {
        slices[at].bytes = reader->at;
        CHECK(msgpack_skip(reader, 0) == MSGPACK_OK);
        slices[at].length = (size_t)(reader->at - slices[at].bytes);
    }
    qsort(slices, count, sizeof *slices, compare_slices);
    msgpack_write_array(writer, count);
    for (uint32_t at = 0; at < count; at++)
        msgpack_write_raw(writer, slices[at].bytes, slices[at].length);
    free(slices);
}

void append_sorted(struct msgpack_writer *writer, const uint8_t *array, size_t length)
{
    struct msgpack_reader reader = {array, array + length};
    append_elements(writer, &reader);
    CHECK(reader.at == reader.end);
}

static void dump_key(struct engine *engine, const struct listed_key *key,
                     struct msgpack_writer *writer)
{
    uint32_t number = hash_partition((const uint8_t *)key->text, key->length,
                                     engine->partition_count);
    struct msgpack_writer view = new_writer();
    engine_lock(engine, number);
    CHECK(partition_read(&engine->partitions[number], key->text, key->length, &view));
    engine_unlock(engine, number);
    msgpack_write_str(writer, key->text, key->length);
    struct msgpack_reader reader = {view.bytes, view.bytes + view.length};
    CHECK(open_whole(&reader, MSGPACK_ARRAY).length == 2);
    append_elements(writer, &reader); /* records */
    append_elements(writer, &reader); /* proxies */
    CHECK(reader.at == reader.end);
    msgpack_writer_free(&view);
}

struct msgpack_writer dump(struct engine *engine)
{
    void (*const tell[])(struct engine *, struct msgpack_writer *) = {
        engine_tables, engine_sources, engine_source_records, engine_aggtypes};
    struct msgpack_writer writer = new_writer();
    struct key_query query = {.limit = SIZE_MAX, .after = {"", 0}};
    struct key_list list;
    engine_keys(engine, &query, &list);
    CHECK(!list.failed && list.count == engine->limits.held_keys);
    for (size_t at = 0; at < list.count; at++)
        dump_key(engine, &list.keys[at], &writer);
    key_list_free(&list);
    for (size_t at = 0; at < sizeof tell / sizeof *tell; at++) {
        struct msgpack_writer told = new_writer();
        tell[at](engine, &told);
        append_sorted(&writer, told.bytes, told.length);
        msgpack_writer_free(&told);
    }
    msgpack_write_uint(&writer, engine->limits.held_keys);
    msgpack_write_uint(&writer, engine->limits.held_records);
    msgpack_write_uint(&writer, engine_source_count(engine));
    CHECK(!writer.failed);
    return writer;
}

bool same_bytes(const struct msgpack_writer *one, const struct msgpack_writer *other)
{
    return one->length == other->length &&
           (one->length == 0 || memcmp(one->bytes, other->bytes, one->length) == 0);
}

/* ---- audit ---------------------------------------------------------------------------------------------- */

struct audit {
    uint64_t keys, records, series;
    uint32_t *columns, *sources, *tables, *structs; /* references that were found, by id */
    struct holding *holdings;                       /* what each source was found to hold */
};

static uint32_t *count_of(const struct names *names)
{
    uint32_t *counts = calloc((size_t)names->count + 1, sizeof *counts);
    CHECK(counts != NULL);
    return counts;
}

static void audit_index(const struct index *index, uint32_t expected)
{
    uint32_t used = 0;
    for (size_t at = 0; index->slots && at <= index->mask; at++)
        used += index->slots[at].id != NONE;
    CHECK(used == index->used && used == expected);
}

/* Every name is referred to as often as it counts; one that isn't is neither held nor findable. */
static void audit_names(const struct names *names, uint32_t *found)
{
    uint32_t live = 0;
    for (uint32_t id = 0; id < names->count; id++) {
        const struct name *name = names->entries[id];
        CHECK(found[id] == (name ? name->refs : 0));
        if (name == NULL || name->refs == 0)
            continue;
        CHECK(names_find(names, name->hash, name->text, name->length) == id);
        live++;
    }
    audit_index(&names->index, live);
    free(found);
}

static void audit_slot(const struct partition *partition, const struct key *key,
                       const struct record *record, const struct slot *slot)
{
    int32_t number = names_at(&partition->columns, slot->column)->tag;
    uint32_t length;
    const uint8_t *value = record_value(slot, &length);
    struct msgpack_reader reader = {value, value + length};
    CHECK(slot->length > 0 && msgpack_skip(&reader, 0) == MSGPACK_OK);
    CHECK(reader.at == reader.end);
    if (slot->series == NONE)
        return;
    CHECK(number >= 0 && (uint32_t)number < partition->metric_count);
    const struct metric *metric = &partition->metrics[number];
    uint32_t id = slot->series;
    if (metric->lanes) {
        const struct lane *lane = pool_at(&metric->lane_pool, id);
        CHECK(lane->attached && lane->source == record->source);
        id = lane->series;
    }
    CHECK(series_at(metric, id)->key == key->id);
}

static void audit_record(const struct partition *partition, const struct key *key, uint32_t id,
                         struct audit *audit)
{
    struct record *record = pool_at(&partition->records, id);
    CHECK(record->key == key && !record->swept && record->count > 0);
    CHECK(record->count <= record->capacity);
    for (unsigned at = 0; at < record->count; at++) {
        const struct slot *slot = &record_slots(record)[at];
        audit_slot(partition, key, record, slot);
        audit->columns[slot->column]++;
    }
    struct holding *holding =
        &audit->holdings[names_at(&partition->sources, record->source)->number];
    holding->records++;
    holding->bytes += sizeof *record;
    holding->bytes += record->capacity > INLINE_SLOTS ? record->capacity * sizeof(struct slot) : 0;
    for (unsigned at = 0; at < record->count; at++) {
        uint32_t length;
        (void)record_value(&record_slots(record)[at], &length);
        holding->bytes += length > INLINE_VALUE ? length : 0;
    }
    uint32_t hash = hash_record(key->hash, names_at(&partition->structs, record->struct_name)->hash,
                                names_at(&partition->sources, record->source)->hash);
    uint32_t at = hash, found;
    while ((found = index_next(&partition->record_index, hash, &at)) != id)
        CHECK(found != NONE);
    audit->structs[record->struct_name]++;
    audit->sources[record->source]++;
    audit->records++;
}

static void audit_lanes(const struct metric *metric, const struct series *series, uint32_t id,
                        struct audit *audit)
{
    const uint32_t *first = series_lanes(metric, series);
    uint32_t loose = 0;
    for (uint32_t at = *first; at != NONE;) {
        const struct lane *lane = pool_at(&metric->lane_pool, at);
        CHECK(lane->series == id);
        loose += !lane->attached;
        audit->sources[lane->source]++;
        at = lane->next;
    }
    CHECK(loose == first[1]);
}

static void audit_series(const struct metric *metric, uint32_t id, struct audit *audit)
{
    const struct series *series = series_at(metric, id);
    CHECK((series->live & ~metric->all) == 0 && (series->started & ~series->live) == 0);
    for (unsigned slot = 0; slot < RING; slot++) {
        bool holds = series_bins(metric, series)[slot].count > 0;
        uint32_t period = series->next + ((slot - series->next) % RING + RING) % RING;
        CHECK(!holds || (series->live == metric->all && period <= series->newest));
    }
    CHECK(series->newest < series->next || series->newest - series->next < RING || !series->live);
    if (metric->lanes)
        audit_lanes(metric, series, id, audit);
    audit->series++;
}

static void audit_key(const struct partition *partition, const struct key *key,
                      struct audit *audit)
{
    uint32_t records = 0, lives = 0;
    CHECK(keys_find(&partition->keys, key->hash, key->text, key->length) == key);
    for (uint32_t id = key->first_record, before = NONE; id != NONE; records++) {
        const struct record *record = pool_at(&partition->records, id);
        CHECK(record->previous == before);
        audit_record(partition, key, id, audit);
        before = id;
        id = record->next;
    }
    CHECK(records == key->record_count);
    for (uint32_t id = key->first_series, of = key->first_metric; id != NONE;) {
        const struct series *series = series_at(&partition->metrics[of], id);
        CHECK(series->key == key->id);
        audit_series(&partition->metrics[of], id, audit);
        lives += series->live != 0;
        id = series->sibling;
        of = series->sibling_metric;
    }
    CHECK(records + lives > 0);
    audit->tables[key->table]++;
    audit->keys++;
}

static void audit_partition(const struct partition *partition, struct audit *audit)
{
    uint64_t keys = audit->keys, records = audit->records, series = audit->series, cells = 0;
    audit->columns = count_of(&partition->columns);
    audit->sources = count_of(&partition->sources);
    audit->tables = count_of(&partition->tables);
    audit->structs = count_of(&partition->structs);
    for (uint32_t id = 0; id < partition->keys.count; id++)
        if (partition->keys.entries[id] && !partition->keys.entries[id]->gone)
            audit_key(partition, partition->keys.entries[id], audit);
    CHECK(partition->sweep_count == 0);
    CHECK(partition->keys.live == audit->keys - keys);
    CHECK(partition->records.live == audit->records - records);
    for (uint32_t number = 0; number < partition->metric_count; number++)
        cells += partition->metrics[number].pool.live;
    CHECK(cells == audit->series - series);
    audit_index(&partition->record_index, (uint32_t)(audit->records - records));
    audit_index(&partition->keys.index, partition->keys.live);
    audit_names(&partition->columns, audit->columns);
    audit_names(&partition->sources, audit->sources);
    audit_names(&partition->tables, audit->tables);
    audit_names(&partition->structs, audit->structs);
}

static void audit_sources(const struct engine *engine, const struct audit *audit)
{
    uint32_t gone = 0, listed = 0, awaited = 0;
    for (uint32_t id = 0; id < engine->source_names.count; id++) {
        const struct holding *found = &audit->holdings[id], *held = &engine->limits.holdings[id];
        CHECK(found->records == held->records && found->bytes == held->bytes && !held->leaving);
        CHECK(engine_knows(engine, id) || held->records == 0);
        gone += engine_knows(engine, id) && engine->sources[id].gone;
        awaited += engine_knows(engine, id) && engine->sources[id].awaited != SOURCE_SETTLED;
    }
    for (uint32_t id = engine->oldest_gone; id != NONE; id = engine->sources[id].newer)
        listed++;
    CHECK(listed == gone && awaited == engine->awaited);
    CHECK(atomic_load(&engine->limits.waiting) == (awaited > 0));
}

void audit(struct engine *engine)
{
    struct audit audit = {0};
    audit.holdings = calloc((size_t)engine->source_names.count + 1, sizeof *audit.holdings);
    CHECK(audit.holdings != NULL);
    for (uint32_t at = 0; at < engine->partition_count; at++)
        audit_partition(&engine->partitions[at], &audit);
    audit_sources(engine, &audit);
    free(audit.holdings);
    CHECK(audit.keys == engine->limits.held_keys);
    CHECK(audit.records == engine->limits.held_records);
    CHECK(audit.series == engine->limits.held_series);
    CHECK(engine->batch.record_count == 0 && engine->batch.attribute_count == 0);
}
