/* Arbitrary bytes as the life of an engine.
 *
 * The input is a script: a byte for what happens, then its operands. Most of it is batches, taken
 * as they stand; the rest moves the clock, changes metrics, asks, takes and lets memory fail. After
 * every step the engine is audited; at the end all of it must have been freed. seeds.py writes
 * scripts to begin with.
 *
 * Built with -DLIBFUZZER this is a libFuzzer target. Without it has a main of its own:
 *     fuzz_batch [-n MUTATIONS] [-s SEED] FILE...
 * lives every file, and then mutations of them. */
#include "harness.h"

#include "hash.h"

#define EPOCH_US 1700000000000000u

enum { STEP_LIMIT = 64 }; /* steps of a script */

struct script {
    const uint8_t *at;
    const uint8_t *end;
};

struct life {
    struct script script;
    struct engine engine;
    struct faults faults;
    uint64_t now;
};

static uint8_t next_byte(struct script *script)
{
    return script->at < script->end ? *script->at++ : 0;
}

static uint32_t next_short(struct script *script)
{
    uint32_t high = next_byte(script);
    return high << 8 | next_byte(script);
}

static const uint8_t *next_bytes(struct script *script, size_t *length)
{
    const uint8_t *bytes = script->at;
    size_t left = (size_t)(script->end - script->at);
    *length = *length < left ? *length : left;
    script->at += *length;
    return bytes;
}

/* ---- steps ------------------------------------------------------------------------------------------ */

static void check_outcome(const struct life *life, const struct outcome *outcome)
{
    bool error = outcome->status > OUTCOME_RESYNC;
    CHECK(outcome->status < OUTCOMES);
    CHECK(error || !outcome->has_seq || outcome->answer);
    CHECK(!error || (outcome->applied == 0 && outcome->fault.message[0] != 0));
    CHECK(outcome->status == OUTCOME_APPLIED || outcome->applied + outcome->rejected == 0);
    CHECK(outcome->status != OUTCOME_OVERLOADED || life->faults.refused);
    for (uint32_t at = 0; at < outcome->rejected && at < OUTCOME_REJECTED; at++) {
        CHECK(outcome->rows[at].rejection > 0 && outcome->rows[at].rejection < REJECTIONS);
        CHECK(at == 0 || outcome->rows[at].index > outcome->rows[at - 1].index);
    }
}

/* The next bytes as a batch; one that is refused must leave everything as it was. */
static void apply_next(struct life *life)
{
    size_t length = next_short(&life->script);
    const uint8_t *bytes = next_bytes(&life->script, &length);
    uint8_t *copy = malloc(length ? length : 1); /* so that a read behind its end is seen */
    const struct faults armed = life->faults;
    faults_begin(&life->faults, 0, false);
    struct msgpack_writer before = dump(&life->engine);
    life->faults = armed;
    struct outcome outcome;
    memcpy(copy, bytes, length);
    struct message message = {(const char *)copy, length, NULL};
    engine_apply(&life->engine, &message, 1, both(life->now), &outcome);
    free(copy);
    faults_end(&life->faults);
    check_outcome(life, &outcome);
    if (outcome.status >= OUTCOME_MALFORMED && outcome.status != OUTCOME_STALE_EPOCH) {
        struct msgpack_writer after = dump(&life->engine);
        CHECK(same_bytes(&before, &after));
        msgpack_writer_free(&after);
    }
    msgpack_writer_free(&before);
}

static void move_clock(struct life *life, bool back)
{
    uint64_t by = (uint64_t)next_short(&life->script) * 100000; /* up to two hours */
    life->now = back ? life->now - by : life->now + by;
    for (uint32_t at = 0; at < life->engine.partition_count; at++)
        engine_advance(&life->engine, at, both(life->now));
}

/* Sources that were silent for up to two hours go; what they told goes with them. */
static void let_go(struct life *life)
{
    uint64_t timeout = (uint64_t)next_short(&life->script) * 100000;
    struct memory memory;
    memory_init(&memory);
    struct msgpack_writer writer = {.memory = &memory};
    engine_expire(&life->engine, life->now, timeout, &writer);
    msgpack_writer_free(&writer);
    for (uint32_t id = 0; id < life->engine.source_names.count; id++)
        CHECK(!engine_knows(&life->engine, id) || !life->engine.sources[id].gone ||
              life->engine.limits.holdings[id].records == 0);
}

static void configure(struct life *life)
{
    static const char *const names[] = {"S-a", "S-b", "T-a"};
    struct metric metrics[3];
    uint32_t count = 0, chosen = next_byte(&life->script);
    for (unsigned name = 0; name < 3; name++) {
        struct specification algorithms[5];
        unsigned wanted = 0;
        uint8_t bits = next_byte(&life->script);
        for (unsigned at = 0; at < 5; at++)
            if (bits & 1u << at)
                algorithms[wanted++] = (struct specification){
                    reducers[(at + (bits >> 5)) % reducer_count].name,
                    detectors[at % detector_count].name, at % 2 ? 0.3 : 1, at % 4};
        if (wanted > 0 && chosen & 1u << name)
            metrics[count++] = new_metric(names[name], algorithms, wanted);
    }
    int status = engine_configure(&life->engine, metrics, count, chosen * 100u);
    CHECK(status == 0 || life->faults.refused);
}

static void list_keys(struct life *life)
{
    size_t length = next_byte(&life->script) % 16;
    const char *bytes = (const char *)next_bytes(&life->script, &length);
    struct text text = {bytes, length};
    uint8_t how = next_byte(&life->script);
    struct key_query query = {
        .table = how & 1 ? text : (struct text){"", 0},
        .match = how & 2 ? text : (struct text){"", 0},
        .after = how & 4 ? text : (struct text){"", 0},
        .patterns = &text,
        .pattern_count = how >> 3 & 1,
        .limit = how >> 4,
    };
    struct key_list list;
    engine_keys(&life->engine, &query, &list);
    CHECK(list.failed == (life->faults.refused > 0) && list.count <= query.limit);
    key_list_free(&list);
}

static void write_long_text(struct msgpack_writer *writer, const char *text, size_t length)
{
    const uint8_t head[] = {0xda, (uint8_t)(length >> 8), (uint8_t)length};
    msgpack_write_raw(writer, head, sizeof head);
    msgpack_write_raw(writer, text, length);
}

/* Take away what one source told of one struct of a key. */
static void remove_record(struct life *life)
{
    struct partition *partition = &life->engine.partitions[next_byte(&life->script) % 2];
    uint32_t id = next_byte(&life->script);
    const struct key *key = id < partition->keys.count ? partition->keys.entries[id] : NULL;
    if (key == NULL || key->gone || key->record_count == 0)
        return;
    const struct record *record = pool_at(&partition->records, key->first_record);
    const struct name *source = names_at(&partition->sources, record->source);
    const struct name *struct_name = names_at(&partition->structs, record->struct_name);
    struct msgpack_writer writer = new_writer();
    msgpack_write_map(&writer, 2);
    write_text(&writer, "source");
    write_long_text(&writer, source->text, source->length);
    write_text(&writer, "records");
    msgpack_write_array(&writer, 1);
    msgpack_write_array(&writer, 3);
    write_long_text(&writer, key->text, key->length);
    write_long_text(&writer, struct_name->text, struct_name->length);
    msgpack_write_nil(&writer);
    uint64_t held = life->engine.limits.held_records;
    faults_end(&life->faults);
    CHECK(apply(&life->engine, &writer, life->now) == OUTCOME_APPLIED);
    CHECK(life->engine.limits.held_records == held - 1);
}

static void take(struct life *life)
{
    struct partition *partition = &life->engine.partitions[next_byte(&life->script) % 2];
    const struct text prefix = {"T", next_byte(&life->script) % 2};
    struct msgpack_writer writer = new_writer();
    size_t count, capacity;
    unsigned list = next_byte(&life->script) % 2 ? ANNOUNCED : OBSERVED;
    partition_take_changes(partition, list, &prefix, 1, &writer);
    struct msgpack_reader reader = {writer.bytes, writer.bytes + writer.length};
    CHECK(msgpack_skip(&reader, 0) == MSGPACK_OK && reader.at == reader.end);
    msgpack_writer_free(&writer);
    struct result *results = partition_take_results(partition, &count, &capacity);
    for (size_t at = 0; at < count; at++)
        CHECK(partition->keys.entries[results[at].key] != NULL);
    memory_free(&life->engine.memory, results, capacity * sizeof *results);
}

static void watch(struct life *life)
{
    static const double thresholds[] = {-1, 0, 100};
    static struct observed_name all[] = {{{"*", 1}, NULL, 0}, {{"*-*", 3}, NULL, 0}};
    static struct observed_name some[] = {{{"S", 1}, NULL, 0},
                                          {{"S-a", 3}, thresholds, 3},
                                          {{"Sum-S-a", 7}, NULL, 0},
                                          {{"Sum-S-a.value", 13}, thresholds, 3}};
    static const struct observed sets[] = {{NULL, 0}, {all, 2}, {some, 4}};
    struct partition *partition = &life->engine.partitions[next_byte(&life->script) % 2];
    partition_watch(partition, next_byte(&life->script) % 2 ? ANNOUNCED : OBSERVED,
                    next_byte(&life->script) % 2);
    partition_observe(partition, &sets[next_byte(&life->script) % 3]);
}

static void take_step(struct life *life)
{
    switch (next_byte(&life->script) % 16) {
    case 0:
        move_clock(life, false);
        break;
    case 1:
        move_clock(life, true);
        break;
    case 2:
        configure(life);
        break;
    case 3:
        list_keys(life);
        break;
    case 4:
        remove_record(life);
        break;
    case 5:
        take(life);
        break;
    case 6:
        watch(life);
        break;
    case 7: { /* of what comes next, if it asks for memory */
        uint8_t how = next_byte(&life->script);
        faults_begin(&life->faults, how >> 1, how & 1);
        return;
    }
    case 8:
        let_go(life);
        break;
    default:
        apply_next(life);
    }
    faults_begin(&life->faults, 0, false);
}

static void live(const uint8_t *bytes, size_t length)
{
    static const struct specification usual[] = {
        {"Sum", "", 1, 1}, {"Sum", "EWM", 0.5, 1}, {"Last", "", 1, 2}, {"Max", "", 1, 1}};
    const struct metric metrics[] = {new_metric("S-a", usual, 4), new_metric("S-b", usual, 2)};
    struct life life = {.script = {bytes, bytes + length}, .now = EPOCH_US};
    CHECK(engine_init(&life.engine, 2, length, resize_or_fail, &life.faults) == 0);
    CHECK(engine_configure(&life.engine, metrics, 2, 5000) == 0);
    life.engine.limits.results = 100;
    for (unsigned step = 0; step < STEP_LIMIT && life.script.at < life.script.end; step++) {
        take_step(&life);
        audit(&life.engine);
    }
    faults_end(&life.faults);
    struct msgpack_writer last = dump(&life.engine);
    msgpack_writer_free(&last);
    engine_free(&life.engine);
    CHECK(life.engine.memory.used == 0);
}

#ifdef LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    live(bytes, length);
    return 0;
}

#else

#include "mutate.h"

int main(int count, char **arguments)
{
    unsigned long mutations = 0;
    int first = read_options(count, arguments, &mutations);
    if (first >= count) {
        fprintf(stderr, "usage: fuzz_batch [-n MUTATIONS] [-s SEED] FILE...\n");
        return 2;
    }
    live_files(count - first, arguments + first, mutations);
    return 0;
}

#endif
