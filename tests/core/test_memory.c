/* Every allocation fails in turn.
 *
 * A story is a list of steps, each one call (or a few of one kind) of the engine. For every step,
 * and for every n: the steps before it are lived with memory enough, then in this one the nth
 * allocation fails, once or with all that follow. A step that says it failed must have left nothing
 * behind; with memory back it is done again; the story goes on, and must end as one in which
 * nothing ever failed. What was waiting to be told (changes, results) may be lost to a lack of
 * memory, but then it is counted. */
#include "harness.h"

enum { KEYS = 24 };
static const uint64_t START = 1700000040000000, SECOND = 1000000, MINUTE = 60000000;

struct story {
    struct engine engine;
    struct faults faults;
    bool begun;
    struct msgpack_writer heard; /* what steps were told, the order made one */
};

/* True where the step was done, false where it says that it failed. */
typedef bool step(struct story *story);

static bool is_whole(const struct outcome *outcome)
{
    CHECK(outcome->status == OUTCOME_APPLIED || outcome->status == OUTCOME_OVERLOADED);
    CHECK(outcome->status == OUTCOME_OVERLOADED || outcome->rejected == 0);
    return outcome->status == OUTCOME_APPLIED;
}

static bool send(struct story *story, struct msgpack_writer *batch, uint64_t now)
{
    struct outcome outcome;
    struct message message = {(const char *)batch->bytes, batch->length, NULL};
    engine_apply(&story->engine, &message, 1, both(now), &outcome);
    msgpack_writer_free(batch);
    return is_whole(&outcome);
}

static const char *key_name(unsigned number)
{
    static char name[32];
    snprintf(name, sizeof name, "Table%u:object-%u", number % 3, number);
    return name;
}

/* A batch about every key, `attributes` of them metrics or not. */
static bool send_samples(struct story *story, const char *source, uint64_t seq, uint64_t now)
{
    struct msgpack_writer batch = open_batch(source, 7, seq, KEYS);
    for (unsigned at = 0; at < KEYS; at++) {
        open_record(&batch, key_name(at), "S", 3, false);
        write_natural(&batch, "a", at);
        write_natural(&batch, "b", at * 2);
        write_natural(&batch, at % 2 ? "odd" : "even", now);
    }
    return send(story, &batch, now);
}

/* ---- the steps ------------------------------------------------------------------------------------- */

static bool begin(struct story *story)
{
    if (engine_init(&story->engine, 3, 9, resize_or_fail, &story->faults)) {
        CHECK(story->engine.memory.used == 0);
        return false;
    }
    story->engine.limits.results = 10000;
    story->begun = true;
    return true;
}

static bool configure(struct story *story, const struct metric *metrics, uint32_t count)
{
    return engine_configure(&story->engine, metrics, count, 5000) == 0;
}

static bool configure_sums(struct story *story)
{
    const struct specification sums[] = {{"Sum", "", 1, 1}, {"Sum", "EWM", 0.5, 1}};
    const struct metric metrics[] = {new_metric("S-a", sums, 2)};
    return configure(story, metrics, 1);
}

static bool configure_more(struct story *story)
{
    const struct specification first[] = {
        {"Sum", "EWM", 0.5, 1}, {"Last", "", 1, 1}, {"Min", "EWM", 0.1, 2}};
    const struct specification second[] = {{"Last", "", 1, 0}, {"Avg", "", 1, 1}};
    const struct metric metrics[] = {new_metric("S-b", second, 2), new_metric("S-a", first, 3)};
    return configure(story, metrics, 2);
}

static bool configure_less(struct story *story)
{
    const struct specification last = {"Last", "", 1, 1};
    const struct metric metrics[] = {new_metric("S-c", &last, 1), new_metric("S-a", &last, 1)};
    return configure(story, metrics, 2);
}

static struct observed_name all_names[] = {{{"*", 1}, NULL, 0}, {{"*-*", 3}, NULL, 0}};
static const struct observed everything = {all_names, 2};

static bool watch(struct story *story)
{
    for (uint32_t at = 0; at < story->engine.partition_count; at++) {
        partition_watch(&story->engine.partitions[at], ANNOUNCED, true);
        partition_watch(&story->engine.partitions[at], OBSERVED, true);
        partition_observe(&story->engine.partitions[at], &everything);
    }
    return true;
}

static bool first_source(struct story *story)
{
    return send_samples(story, "one", 1, START);
}

static bool second_source(struct story *story)
{
    return send_samples(story, "two:a:b:0", 1, START + SECOND);
}

static bool first_source_again(struct story *story)
{
    return send_samples(story, "one", 2, START + 70 * SECOND);
}

static bool unnumbered_source(struct story *story)
{
    return send_samples(story, "three", 0, START + 71 * SECOND);
}

/* Short messages that are applied as one; each needs memory of its own, for a key and a value. */
static bool short_messages(struct story *story)
{
    enum { MESSAGES = 3 };
    struct msgpack_writer written[MESSAGES];
    struct message messages[MESSAGES];
    struct outcome outcomes[MESSAGES];
    for (unsigned at = 0; at < MESSAGES; at++) {
        written[at] = open_batch("one", 0, 0, 1);
        open_record(&written[at], key_name(1000 + at), "S", 2, false);
        write_natural(&written[at], "a", at);
        write_text(&written[at], "text");
        write_text(&written[at], "a value that is too long for the slot");
        messages[at] = (struct message){(const char *)written[at].bytes, written[at].length, NULL};
    }
    engine_apply(&story->engine, messages, MESSAGES, both(START + 2 * SECOND), outcomes);
    bool whole = true;
    for (unsigned at = 0; at < MESSAGES; at++) {
        CHECK(is_whole(&outcomes[at]) == is_whole(&outcomes[0]));
        whole = is_whole(&outcomes[at]);
        msgpack_writer_free(&written[at]);
    }
    return whole;
}

static bool aggtypes(struct story *story)
{
    struct msgpack_writer batch = new_writer();
    msgpack_write_map(&batch, 3);
    write_text(&batch, "source");
    write_text(&batch, "one");
    write_text(&batch, "records");
    msgpack_write_array(&batch, 0);
    write_text(&batch, "aggtypes");
    msgpack_write_map(&batch, 2);
    write_text(&batch, "S");
    msgpack_write_map(&batch, 2);
    write_text(&batch, "a");
    write_text(&batch, "sum");
    write_text(&batch, "b");
    write_text(&batch, "append:name");
    write_text(&batch, "Other");
    msgpack_write_map(&batch, 1);
    write_text(&batch, "x");
    write_text(&batch, "union");
    return send(story, &batch, START);
}

static bool many_attributes(struct story *story)
{
    struct msgpack_writer batch = open_batch("one", 0, 0, 2);
    char name[16];
    for (unsigned record = 0; record < 2; record++) {
        open_record(&batch, key_name(record), "Wide", 40 + record, false);
        for (unsigned at = 0; at < 40 + record; at++) {
            snprintf(name, sizeof name, "n%u", at);
            write_natural(&batch, name, at);
        }
    }
    return send(story, &batch, START + SECOND);
}

static bool long_values(struct story *story)
{
    char text[300];
    memset(text, 'v', sizeof text);
    text[sizeof text - 1] = 0;
    struct msgpack_writer batch = open_batch("one", 0, 0, 4);
    for (unsigned at = 0; at < 4; at++) {
        open_record(&batch, key_name(at / 2), "S", 3, false);
        write_text(&batch, "text");
        write_text(&batch, text + at * 70);
        write_text(&batch, "other");
        write_text(&batch, text + at * 10);
        write_text(&batch, "text"); /* the same name twice */
        write_text(&batch, text + at * 60);
    }
    return send(story, &batch, START + SECOND);
}

static bool samples_where_texts_were(struct story *story)
{
    struct msgpack_writer batch = open_batch("one", 0, 0, 2);
    open_record(&batch, key_name(1), "S", 1, false);
    write_natural(&batch, "text", 3);
    open_record(&batch, "Table9:new", "S", 1, false);
    write_natural(&batch, "c", 3);
    return send(story, &batch, START + 72 * SECOND);
}

static bool removals(struct story *story)
{
    struct msgpack_writer batch = open_batch("one", 0, 0, 5);
    open_record(&batch, key_name(2), "S", 2, false);
    write_text(&batch, "a");
    msgpack_write_nil(&batch);
    write_natural(&batch, "new", 1);
    open_record(&batch, key_name(2), "S", 1, false);
    write_natural(&batch, "a", 5);
    msgpack_write_array(&batch, 3);
    write_text(&batch, key_name(3));
    write_text(&batch, "S");
    msgpack_write_nil(&batch);
    open_record(&batch, key_name(3), "S", 1, false);
    write_natural(&batch, "a", 6);
    msgpack_write_array(&batch, 3);
    write_text(&batch, key_name(4));
    write_text(&batch, "S");
    msgpack_write_nil(&batch);
    return send(story, &batch, START + 73 * SECOND);
}

static bool history(struct story *story)
{
    struct msgpack_writer batch = open_batch("one", 0, 0, 40);
    for (unsigned at = 0; at < 40; at++) {
        open_record(&batch, "Table0:past", "S", 2, true);
        write_natural(&batch, "a", at);
        write_natural(&batch, "b", at);
        msgpack_write_uint(&batch, START - (60 - at) * MINUTE);
    }
    return send(story, &batch, START + 2 * MINUTE);
}

static void advance(struct story *story, uint64_t now)
{
    for (uint32_t at = 0; at < story->engine.partition_count; at++)
        engine_advance(&story->engine, at, both(now));
}

static bool advance_a_minute(struct story *story)
{
    advance(story, START + MINUTE + 6 * SECOND);
    return true;
}

static bool advance_an_hour(struct story *story)
{
    for (uint64_t minute = 2; minute < 60; minute++)
        advance(story, START + minute * MINUTE + 6 * SECOND);
    return true;
}

static bool hear(struct story *story, struct msgpack_writer *told)
{
    bool whole = !told->failed;
    if (whole)
        append_sorted(&story->heard, told->bytes, told->length);
    msgpack_writer_free(told);
    return whole;
}

static bool read_every_key(struct story *story)
{
    for (uint32_t at = 0; at < story->engine.partition_count; at++) {
        struct partition *partition = &story->engine.partitions[at];
        for (uint32_t id = 0; id < partition->keys.count; id++) {
            const struct key *key = partition->keys.entries[id];
            if (key == NULL || key->gone)
                continue;
            struct msgpack_writer view = {.memory = &story->engine.memory};
            CHECK(partition_read(partition, key->text, key->length, &view));
            bool failed = view.failed;
            msgpack_writer_free(&view);
            if (failed)
                return false;
        }
    }
    return true;
}

static bool list_keys(struct story *story)
{
    const struct key_query query = {.after = {"", 0}, .match = {"*object*", 8}, .limit = 10};
    struct key_list list;
    engine_keys(&story->engine, &query, &list);
    bool whole = !list.failed;
    CHECK(!whole || list.count == 10);
    key_list_free(&list);
    return whole;
}

static bool tell(struct story *story, void (*write)(struct engine *, struct msgpack_writer *))
{
    struct msgpack_writer writer = {.memory = &story->engine.memory};
    write(&story->engine, &writer);
    return hear(story, &writer);
}

static bool tables(struct story *story)
{
    return tell(story, engine_tables);
}

static bool sources(struct story *story)
{
    return tell(story, engine_sources);
}

static bool source_records(struct story *story)
{
    return tell(story, engine_source_records);
}

static bool told_aggtypes(struct story *story)
{
    return tell(story, engine_aggtypes);
}

static bool take_list_of(struct story *story, uint32_t partition, unsigned list)
{
    const struct text any = {"", 0};
    struct msgpack_writer writer = {.memory = &story->engine.memory};
    partition_take_changes(&story->engine.partitions[partition], list, &any, 1, &writer);
    return hear(story, &writer);
}

static bool take_changes_of(struct story *story, uint32_t partition)
{
    return take_list_of(story, partition, ANNOUNCED);
}

static bool take_observed(struct story *story)
{
    return take_list_of(story, 0, OBSERVED);
}

static bool take_changes_of_0(struct story *story)
{
    return take_changes_of(story, 0);
}

static bool take_changes_of_1(struct story *story)
{
    return take_changes_of(story, 1);
}

static bool take_changes_of_2(struct story *story)
{
    return take_changes_of(story, 2);
}

static bool take_results(struct story *story)
{
    for (uint32_t at = 0; at < story->engine.partition_count; at++) {
        struct partition *partition = &story->engine.partitions[at];
        size_t count, capacity;
        struct result *results = partition_take_results(partition, &count, &capacity);
        struct msgpack_writer told = new_writer();
        msgpack_write_array(&told, (uint32_t)count);
        for (size_t row = 0; row < count; row++) {
            const struct key *key = partition->keys.entries[results[row].key];
            msgpack_write_array(&told, 6);
            msgpack_write_str(&told, key->text, key->length);
            msgpack_write_uint(&told, results[row].period);
            msgpack_write_uint(&told, (uint64_t)results[row].metric << 16 |
                                          (uint64_t)results[row].algorithm << 8 |
                                          results[row].flags);
            msgpack_write_double(&told, results[row].value);
            msgpack_write_double(&told, results[row].mean);
            msgpack_write_double(&told, results[row].sigma);
        }
        memory_free(&story->engine.memory, results, capacity * sizeof *results);
        CHECK(hear(story, &told));
    }
    return true;
}

static bool remove_everything(struct story *story)
{
    struct msgpack_writer batch = open_batch("one", 0, 0, 3 * KEYS);
    for (unsigned at = 0; at < 3 * KEYS; at++) {
        msgpack_write_array(&batch, 3);
        write_text(&batch, key_name(at % KEYS));
        write_text(&batch, at < KEYS ? "S" : at < 2 * KEYS ? "Wide" : "None");
        msgpack_write_nil(&batch);
    }
    return send(story, &batch, START + 2 * MINUTE);
}

#define STEP(function) {#function, function}

static const struct {
    const char *name;
    step *take;
} STEPS[] = {
    STEP(begin), STEP(configure_sums), STEP(first_source), STEP(watch), STEP(second_source),
    STEP(short_messages), STEP(aggtypes), STEP(many_attributes), STEP(long_values), STEP(read_every_key),
    STEP(list_keys), STEP(tables), STEP(sources), STEP(source_records), STEP(told_aggtypes),
    STEP(take_changes_of_0), STEP(take_observed), STEP(advance_a_minute), STEP(take_results),
    STEP(configure_more),
    STEP(first_source_again), STEP(unnumbered_source), STEP(samples_where_texts_were),
    STEP(take_changes_of_1), STEP(removals), STEP(history), STEP(take_results),
    STEP(configure_less), STEP(take_changes_of_2), STEP(take_results), STEP(configure_more),
    STEP(removals), STEP(remove_everything), STEP(advance_an_hour), STEP(take_changes_of_0),
    STEP(take_changes_of_1), STEP(take_changes_of_2), STEP(take_results), STEP(configure_sums),
    STEP(unnumbered_source), STEP(read_every_key),
};
enum { STEP_COUNT = sizeof STEPS / sizeof *STEPS };

/* ---- living a story ------------------------------------------------------------------------------- */

static void live(struct story *story, unsigned first, unsigned end)
{
    for (unsigned at = first; at < end; at++)
        CHECK(STEPS[at].take(story)); /* with memory enough */
}

static uint64_t dropped(struct story *story)
{
    struct partition_counters counters = engine_partition_counters(&story->engine);
    return counters.changes_dropped + counters.observed_dropped + counters.results_dropped;
}

static void end_story(struct story *story)
{
    audit(&story->engine);
    engine_free(&story->engine);
    CHECK(story->engine.memory.used == 0);
    msgpack_writer_free(&story->heard);
}

static void compare_endings(struct story *story, struct story *untouched)
{
    struct msgpack_writer one = dump(&story->engine), other = dump(&untouched->engine);
    struct partition_counters counters = engine_partition_counters(&story->engine),
                              expected = engine_partition_counters(&untouched->engine);
    CHECK(same_bytes(&one, &other));
    CHECK(counters.samples == expected.samples && counters.late == expected.late);
    CHECK(counters.closed == expected.closed && counters.deleted == expected.deleted);
    CHECK(story->engine.limits.held_series == untouched->engine.limits.held_series);
    CHECK(story->engine.counters.records == untouched->engine.counters.records);
    CHECK(dropped(story) || same_bytes(&story->heard, &untouched->heard));
    msgpack_writer_free(&one);
    msgpack_writer_free(&other);
}

/* engine_configure says so: what failed half-way is asked for again. */
static bool changes_partition_by_partition(step *take)
{
    return take == configure_sums || take == configure_more || take == configure_less;
}

/* Live the story with the nth allocation of a step failing; false where it has none any more. */
static bool live_with_fault(unsigned tested, uint64_t nth, bool ever_after,
                            struct story *untouched)
{
    struct story story = {.heard = new_writer()};
    snprintf(check_context, sizeof check_context, "(step %u, %s: allocation %llu%s fails)", tested,
             STEPS[tested].name, (unsigned long long)nth, ever_after ? " and all later" : "");
    live(&story, 0, tested);
    struct msgpack_writer before = story.begun ? dump(&story.engine) : new_writer();
    faults_begin(&story.faults, nth, ever_after);
    bool done = STEPS[tested].take(&story);
    bool refused = faults_end(&story.faults);
    CHECK(done || refused);
    if (story.begun)
        audit(&story.engine);
    /* What failed together was applied one by one, and then there was memory. */
    bool tried_again = STEPS[tested].take == short_messages;
    if (done && refused && !tried_again)
        CHECK(dropped(&story) > 0);
    if (!done && !changes_partition_by_partition(STEPS[tested].take)) {
        struct msgpack_writer after = story.begun ? dump(&story.engine) : new_writer();
        CHECK(same_bytes(&before, &after));
        msgpack_writer_free(&after);
    }
    live(&story, done ? tested + 1 : tested, STEP_COUNT);
    compare_endings(&story, untouched);
    msgpack_writer_free(&before);
    end_story(&story);
    return refused;
}

static void test_every_allocation_fails_in_turn(bool ever_after)
{
    struct story untouched = {.heard = new_writer()};
    live(&untouched, 0, STEP_COUNT);
    CHECK(dropped(&untouched) == 0);
    uint64_t faults = 0;
    for (unsigned at = 0; at < STEP_COUNT; at++) {
        uint64_t nth = 1;
        while (live_with_fault(at, nth, ever_after, &untouched))
            nth++;
        if (getenv("VERBOSE"))
            printf("  %-26s %llu allocations\n", STEPS[at].name, (unsigned long long)nth - 1);
        faults += nth - 1;
    }
    end_story(&untouched);
    printf("ok %s: %llu\n", ever_after ? "all fail from the nth on" : "the nth fails once",
           (unsigned long long)faults);
}

int main(void)
{
    test_every_allocation_fails_in_turn(false);
    test_every_allocation_fails_in_turn(true);
    return 0;
}
