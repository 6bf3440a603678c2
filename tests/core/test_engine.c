/* The engine in C, scenario by scenario, audited after each. The numbers themselves are tested from
 * Python, against the vectors and a model; here it is that nothing dangles, leaks or is left over. */
#include "harness.h"

#include "hash.h"

static const uint64_t START = 1700000040000000; /* where a period begins */
static const uint64_t SECOND = 1000000, MINUTE = 60000000;

static const struct specification SUM = {"Sum", "", 1, 1}, EWM = {"Sum", "EWM", 0.5, 1},
                                  LAST = {"Last", "", 1, 1}, MIN = {"Min", "", 1, 1},
                                  LONG_SUM = {"Sum", "", 1, 3};

static void begin(struct engine *engine, const struct metric *metrics, uint32_t count)
{
    CHECK(engine_init(engine, 2, 1, NULL, NULL) == 0);
    CHECK(engine_configure(engine, metrics, count, 5000) == 0);
}

static void end(struct engine *engine)
{
    audit(engine);
    engine_free(engine);
    CHECK(engine->memory.used == 0);
}

static uint64_t advance(struct engine *engine, uint64_t now)
{
    uint64_t closed = 0;
    for (uint32_t at = 0; at < engine->partition_count; at++)
        closed += engine_advance(engine, at, both(now));
    return closed;
}

static void watch(struct engine *engine, bool on)
{
    for (uint32_t at = 0; at < engine->partition_count; at++)
        partition_watch(&engine->partitions[at], ANNOUNCED, on);
}

static bool knows(struct engine *engine, const char *key)
{
    struct msgpack_writer view = new_writer();
    uint32_t number = hash_partition((const uint8_t *)key, strlen(key), engine->partition_count);
    bool found = partition_read(&engine->partitions[number], key, strlen(key), &view);
    msgpack_writer_free(&view);
    return found;
}

/* How many changes are taken whose keys begin with `prefix`. */
static uint32_t take_changes(struct engine *engine, const char *prefix)
{
    struct text wanted = {prefix, strlen(prefix)};
    uint32_t changes = 0;
    for (uint32_t at = 0; at < engine->partition_count; at++) {
        struct msgpack_writer writer = new_writer();
        partition_take_changes(&engine->partitions[at], ANNOUNCED, &wanted, 1, &writer);
        struct msgpack_reader reader = {writer.bytes, writer.bytes + writer.length};
        struct msgpack_head head;
        CHECK(!msgpack_read(&reader, &head) && head.type == MSGPACK_ARRAY);
        changes += head.length;
        msgpack_writer_free(&writer);
    }
    return changes;
}

static size_t take_results(struct engine *engine)
{
    size_t taken = 0;
    for (uint32_t at = 0; at < engine->partition_count; at++) {
        size_t count, capacity;
        struct result *results =
            partition_take_results(&engine->partitions[at], &count, &capacity);
        memory_free(&engine->memory, results, capacity * sizeof *results);
        taken += count;
    }
    return taken;
}

static void remove_struct(struct engine *engine, const char *source, const char *key, uint64_t now)
{
    struct msgpack_writer writer = open_batch(source, 0, 0, 1);
    msgpack_write_array(&writer, 3);
    write_text(&writer, key);
    write_text(&writer, "S");
    msgpack_write_nil(&writer);
    CHECK(apply(engine, &writer, now) == OUTCOME_APPLIED);
}

/* ---- records -------------------------------------------------------------------------------------- */

static void test_keys_come_and_go(void)
{
    struct engine engine;
    begin(&engine, NULL, 0);
    char key[32];
    for (unsigned at = 0; at < 3000; at++) {
        snprintf(key, sizeof key, "T%u:%u", at % 7, at);
        apply_one(&engine, at % 2 ? "one" : "two", key, "S", "a", at, START);
    }
    audit(&engine);
    CHECK(engine.limits.held_keys == 3000 && engine.limits.held_records == 3000);
    for (unsigned at = 0; at < 3000; at++) {
        snprintf(key, sizeof key, "T%u:%u", at % 7, at);
        CHECK(knows(&engine, key));
        remove_struct(&engine, at % 2 ? "one" : "two", key, START);
        CHECK(!knows(&engine, key));
    }
    CHECK(engine.limits.held_keys == 0 && engine.limits.held_records == 0);
    end(&engine);
}

static void test_values_of_every_length_replace_one_another(void)
{
    struct engine engine;
    begin(&engine, NULL, 0);
    char text[400];
    for (unsigned round = 0; round < 800; round++) {
        size_t length = round * 37 % sizeof text;
        memset(text, 'a' + (int)(round % 26), sizeof text);
        text[length] = 0;
        struct msgpack_writer writer = open_batch("s", 0, 0, 1);
        open_record(&writer, "T:x", "S", 2, false);
        write_text(&writer, "a");
        write_text(&writer, text);
        write_text(&writer, "a"); /* the same name again: the later one holds */
        write_text(&writer, text + length / 2);
        CHECK(apply(&engine, &writer, START) == OUTCOME_APPLIED);
    }
    end(&engine);
}

static void test_attributes_up_to_the_limit_and_no_more(void)
{
    struct engine engine;
    begin(&engine, NULL, 0);
    char name[16];
    for (unsigned count = 1; count <= RECORD_SLOTS + 1; count++) {
        struct msgpack_writer writer = open_batch("s", 0, 0, 1);
        open_record(&writer, "T:x", "S", count, false);
        for (unsigned at = 0; at < count; at++) {
            snprintf(name, sizeof name, "a%u", at);
            write_natural(&writer, name, at);
        }
        CHECK(apply(&engine, &writer, START) == OUTCOME_APPLIED);
    }
    CHECK(engine.counters.rejected[LIMIT_ATTRIBUTES] == 1);
    struct msgpack_writer writer = open_batch("s", 0, 0, 1);
    open_record(&writer, "T:x", "S", RECORD_SLOTS - 1, false);
    for (unsigned at = 1; at < RECORD_SLOTS; at++) {
        snprintf(name, sizeof name, "a%u", at);
        write_text(&writer, name);
        msgpack_write_nil(&writer);
    }
    apply(&engine, &writer, START);
    CHECK(knows(&engine, "T:x"));
    end(&engine);
}

static void test_removed_and_set_again_within_a_batch(void)
{
    struct metric metric = new_metric("S-a", &LAST, 1);
    struct engine engine;
    begin(&engine, &metric, 1);
    apply_one(&engine, "s", "T:x", "S", "a", 1, START);
    struct msgpack_writer writer = open_batch("s", 0, 0, 3);
    open_record(&writer, "T:x", "S", 1, false);
    write_text(&writer, "a");
    msgpack_write_nil(&writer);
    open_record(&writer, "T:x", "S", 1, false);
    write_natural(&writer, "a", 2);
    msgpack_write_array(&writer, 3);
    write_text(&writer, "T:y"); /* one that nobody knows */
    write_text(&writer, "S");
    msgpack_write_nil(&writer);
    CHECK(apply(&engine, &writer, START + SECOND) == OUTCOME_APPLIED);
    CHECK(knows(&engine, "T:x") && !knows(&engine, "T:y"));
    CHECK(engine_partition_counters(&engine).samples == 2);
    end(&engine);
}

static void test_limits_refuse_and_hold(void)
{
    struct engine engine;
    begin(&engine, NULL, 0);
    engine.limits.keys = 2;
    engine.limits.records = 3;
    engine.source_limit = 2;
    apply_one(&engine, "one", "T:a", "S", "a", 1, START);
    apply_one(&engine, "one", "T:b", "S", "a", 1, START);
    apply_one(&engine, "one", "T:c", "S", "a", 1, START);
    CHECK(engine.counters.rejected[LIMIT_KEYS] == 1);
    apply_one(&engine, "two", "T:a", "S", "a", 1, START);
    apply_one(&engine, "two", "T:b", "S", "a", 1, START);
    CHECK(engine.counters.rejected[LIMIT_RECORDS] == 1);
    CHECK(apply_one(&engine, "three", "T:a", "S", "a", 1, START) == OUTCOME_OVERLOADED);
    engine.limits.bytes = 0;
    apply_one(&engine, "one", "T:a", "S", "b", 1, START);
    CHECK(engine.counters.rejected[LIMIT_BYTES] == 1);
    apply_one(&engine, "one", "T:a", "S", "a", 2, START);
    CHECK(engine.counters.records == 4);
    CHECK(engine.limits.held_keys == 2 && engine.limits.held_records == 3);
    end(&engine);
}

/* A count that the bytes cannot back is believed no further than the limit. */
static void test_many_tiny_records_in_a_huge_count(void)
{
    struct engine engine;
    begin(&engine, NULL, 0);
    struct msgpack_writer writer = open_batch("s", 0, 0, UINT32_MAX);
    for (unsigned at = 0; at <= BATCH_RECORDS; at++)
        msgpack_write_nil(&writer);
    CHECK(apply(&engine, &writer, START) == OUTCOME_TOO_LARGE);
    end(&engine);
}

/* ---- series --------------------------------------------------------------------------------------- */

static void test_a_series_lives_and_is_deleted_with_its_key(void)
{
    struct metric metric = new_metric("S-a", (struct specification[]){SUM, EWM, LAST, MIN}, 4);
    struct engine engine;
    begin(&engine, &metric, 1);
    engine.limits.results = 1000;
    watch(&engine, true);
    apply_one(&engine, "one", "T:x", "S", "a", 1, START);
    apply_one(&engine, "two", "T:x", "S", "a", 2, START + SECOND);
    CHECK(engine.limits.held_series == 1 && take_changes(&engine, "T:") > 0);
    remove_struct(&engine, "one", "T:x", START + 2 * SECOND);
    remove_struct(&engine, "two", "T:x", START + 2 * SECOND);
    audit(&engine);
    CHECK(knows(&engine, "T:x")); /* its proxies live on */
    CHECK(advance(&engine, START + MINUTE + 6 * SECOND) == 1);
    advance(&engine, START + 2 * MINUTE + 6 * SECOND);
    CHECK(!knows(&engine, "T:x") && engine.limits.held_series == 0);
    CHECK(take_results(&engine) == 8 && take_changes(&engine, "") > 0);
    advance(&engine, START + 3 * MINUTE);
    end(&engine);
}

static void test_history_drives_the_ring(void)
{
    struct metric metric = new_metric("S-a", (struct specification[]){LONG_SUM, LAST}, 2);
    struct engine engine;
    begin(&engine, &metric, 1);
    for (uint64_t minute = 0; minute < 600; minute += 1 + minute % 13) {
        struct msgpack_writer writer = open_batch(minute % 2 ? "one" : "two", 0, 0, 1);
        open_record(&writer, "T:x", "S", 1, true);
        write_natural(&writer, "a", minute);
        msgpack_write_uint(&writer, START - (600 - minute) * MINUTE);
        CHECK(apply(&engine, &writer, START) == OUTCOME_APPLIED);
        audit(&engine);
    }
    CHECK(engine_partition_counters(&engine).late == 0);
    end(&engine);
}

static void test_the_clock_may_jump_anywhere(void)
{
    static const uint64_t TIMES[] = {0, 1, 59, 4000000, 5000000000, 1700000040, 1700000039,
                                     1700000000, 1800000000, 4294967295, 4294967296, 5000000000,
                                     250000000000, 3};
    struct metric metric = new_metric("S-a", (struct specification[]){LONG_SUM, LAST}, 2);
    struct engine engine;
    begin(&engine, &metric, 1);
    watch(&engine, true);
    for (size_t at = 0; at < sizeof TIMES / sizeof *TIMES; at++) {
        apply_one(&engine, "s", "T:x", "S", "a", at, TIMES[at] * SECOND);
        advance(&engine, TIMES[at] * SECOND);
        advance(&engine, TIMES[at] * SECOND + 3 * MINUTE);
        audit(&engine);
    }
    end(&engine);
}

static void test_metrics_change_under_load(void)
{
    const struct specification all[] = {SUM, EWM, LAST, MIN};
    struct engine engine;
    begin(&engine, NULL, 0);
    char key[16];
    watch(&engine, true);
    for (unsigned round = 0; round < 64; round++) {
        struct metric metrics[2];
        uint32_t count = 0;
        if (round & 16) /* its number may become the first's */
            metrics[count++] = new_metric("S-b", &LAST, 1);
        if ((round & 15) != 0) {
            struct specification chosen[4];
            unsigned algorithms = 0;
            for (unsigned at = 0; at < 4; at++)
                if (round & 1u << at)
                    chosen[algorithms++] = all[at];
            metrics[count++] = new_metric("S-a", chosen, algorithms);
        }
        uint64_t now = START + round * 20 * SECOND;
        CHECK(engine_configure(&engine, metrics, count, 5000 + round) == 0);
        audit(&engine);
        for (unsigned at = 0; at < 20; at++) {
            snprintf(key, sizeof key, "T:%u", (at * 7 + round) % 30);
            apply_one(&engine, at % 2 ? "one" : "two", key, "S", round % 3 ? "a" : "b", at, now);
        }
        snprintf(key, sizeof key, "T:%u", round % 30);
        remove_struct(&engine, "one", key, now);
        audit(&engine);
        advance(&engine, now + 10 * SECOND);
        audit(&engine);
        if (round % 5 == 0)
            take_changes(&engine, "T:1");
    }
    CHECK(engine_configure(&engine, NULL, 0, 0) == 0);
    CHECK(engine.limits.held_series == 0);
    end(&engine);
}

/* A source that no longer tells of a metric with lanes leaves none behind for ever. */
static void test_lanes_go_with_their_sources(void)
{
    struct metric metric = new_metric("S-a", &LAST, 1);
    struct engine engine;
    begin(&engine, &metric, 1);
    char source[16];
    for (unsigned at = 0; at < 300; at++) {
        snprintf(source, sizeof source, "s%u", at);
        apply_one(&engine, source, "T:x", "S", "a", at, START + at * SECOND);
        remove_struct(&engine, source, "T:x", START + at * SECOND);
        apply_one(&engine, "lasting", "T:x", "S", "a", at, START + at * SECOND);
        advance(&engine, START + at * SECOND);
        audit(&engine);
    }
    const struct metric *own =
        &engine.partitions[hash_partition((const uint8_t *)"T:x", 3, 2)].metrics[0];
    CHECK(own->lane_pool.live < 150);
    end(&engine);
}

/* ---- reading ---------------------------------------------------------------------------------------- */

static size_t count_keys(struct engine *engine, struct key_query query)
{
    struct key_list list;
    query.after = query.after.bytes ? query.after : (struct text){"", 0};
    engine_keys(engine, &query, &list);
    for (size_t at = 1; at < list.count; at++)
        CHECK(strncmp(list.keys[at - 1].text, list.keys[at].text, 3) <= 0);
    size_t count = list.count;
    key_list_free(&list);
    return count;
}

static void test_keys_are_listed_in_order(void)
{
    struct engine engine;
    begin(&engine, NULL, 0);
    for (char name = 'z'; name >= 'a'; name--) {
        apply_one(&engine, "s", (char[]){'T', ':', name, 0}, "S", "a", 1, START);
        apply_one(&engine, "s", (char[]){'U', ':', name, 0}, "S", "a", 1, START);
    }
    const struct text patterns[] = {{"*a", 2}, {"U:*", 3}};
    CHECK(count_keys(&engine, (struct key_query){.limit = 100}) == 52);
    CHECK(count_keys(&engine, (struct key_query){.limit = 10}) == 10);
    CHECK(count_keys(&engine, (struct key_query){.limit = 0}) == 0);
    CHECK(count_keys(&engine, (struct key_query){.limit = 100, .table = {"T", 1}}) == 26);
    CHECK(count_keys(&engine, (struct key_query){.limit = 100, .after = {"T:x", 3}}) == 28);
    CHECK(count_keys(&engine, (struct key_query){.limit = 100, .match = {"T:a*", 4}}) == 1);
    CHECK(count_keys(&engine, (struct key_query){
                                  .limit = 100, .patterns = patterns, .pattern_count = 2}) == 27);
    end(&engine);
}

static void test_results_are_bounded_and_handed_over(void)
{
    struct metric metric = new_metric("S-a", &SUM, 1);
    struct engine engine;
    begin(&engine, &metric, 1);
    engine.limits.results = 20;
    char key[16];
    for (unsigned at = 0; at < 200; at++) {
        snprintf(key, sizeof key, "T:%u", at);
        apply_one(&engine, "s", key, "S", "a", at, START);
    }
    advance(&engine, START + MINUTE + 6 * SECOND);
    CHECK(engine_partition_counters(&engine).results_dropped > 0);
    CHECK(take_results(&engine) + engine_partition_counters(&engine).results_dropped == 200);
    CHECK(take_results(&engine) == 0);
    end(&engine);
}

/* Their numbers hold until the next call, even for those that the results tell the end of. */
static void test_results_name_keys_that_are_gone(void)
{
    struct metric metric = new_metric("S-a", &SUM, 1);
    struct engine engine;
    begin(&engine, &metric, 1);
    engine.limits.results = 100;
    apply_one(&engine, "s", "T:x", "S", "a", 1, START);
    remove_struct(&engine, "s", "T:x", START);
    advance(&engine, START + MINUTE + 6 * SECOND);
    advance(&engine, START + 2 * MINUTE + 6 * SECOND);
    CHECK(!knows(&engine, "T:x"));
    struct partition *partition =
        &engine.partitions[hash_partition((const uint8_t *)"T:x", 3, engine.partition_count)];
    size_t count, capacity;
    struct result *results = partition_take_results(partition, &count, &capacity);
    CHECK(count == 2 && results[1].flags == RESULT_DELETED);
    const struct key *key = partition->keys.entries[results[1].key];
    CHECK(key != NULL && memcmp(key->text, "T:x", 3) == 0);
    memory_free(&engine.memory, results, capacity * sizeof *results);
    CHECK(take_results(&engine) == 0);
    CHECK(partition->keys.entries[0] == NULL);
    end(&engine);
}

static void test_numbering(void)
{
    static const struct {
        uint64_t epoch, seq;
        enum outcome_status status;
    } ROWS[] = {{5, 2, OUTCOME_RESYNC}, {5, 1, OUTCOME_APPLIED}, {5, 1, OUTCOME_DUPLICATE},
                {5, 3, OUTCOME_RESYNC}, {5, 2, OUTCOME_APPLIED}, {4, 3, OUTCOME_STALE_EPOCH},
                {6, 3, OUTCOME_RESYNC}, {6, 1, OUTCOME_APPLIED}, {5, 3, OUTCOME_STALE_EPOCH}};
    struct engine engine;
    begin(&engine, NULL, 0);
    for (size_t at = 0; at < sizeof ROWS / sizeof *ROWS; at++) {
        struct msgpack_writer writer = open_batch("s", ROWS[at].epoch, ROWS[at].seq, 0);
        CHECK(apply(&engine, &writer, START) == ROWS[at].status);
    }
    end(&engine);
}

int main(void)
{
    RUN(test_keys_come_and_go);
    RUN(test_values_of_every_length_replace_one_another);
    RUN(test_attributes_up_to_the_limit_and_no_more);
    RUN(test_removed_and_set_again_within_a_batch);
    RUN(test_limits_refuse_and_hold);
    RUN(test_many_tiny_records_in_a_huge_count);
    RUN(test_a_series_lives_and_is_deleted_with_its_key);
    RUN(test_history_drives_the_ring);
    RUN(test_the_clock_may_jump_anywhere);
    RUN(test_metrics_change_under_load);
    RUN(test_lanes_go_with_their_sources);
    RUN(test_keys_are_listed_in_order);
    RUN(test_results_are_bounded_and_handed_over);
    RUN(test_results_name_keys_that_are_gone);
    RUN(test_numbering);
    return 0;
}
