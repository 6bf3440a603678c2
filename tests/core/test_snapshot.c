/* What was saved comes back: all of it, or none of it; and what is sent again counts once.
 *
 * Engines are compared by what they tell (dump), by what they save, and by how they go on: two that
 * are the same now must stay so. */
#include "harness.h"

#include "hash.h"

enum { PARTITIONS = 3, KEYS = 20, MOST_PARTITIONS = 8 };
static const uint64_t START = 1700000040000000, SECOND = 1000000, MINUTE = 60000000,
                      HOUR = 3600000000;

/* ---- saving and bringing back, whole -------------------------------------------------------------- */

struct saved {
    struct msgpack_writer head, bodies[MOST_PARTITIONS];
    uint32_t count;
};

static void free_saved(struct saved *saved)
{
    msgpack_writer_free(&saved->head);
    for (uint32_t at = 0; at < saved->count; at++)
        msgpack_writer_free(&saved->bodies[at]);
}

static void save_one(struct engine *engine, struct saved *saved, struct moment now)
{
    saved->bodies[saved->count] = new_writer();
    engine_save_partition(engine, saved->count, now, &saved->bodies[saved->count]);
    CHECK(!saved->bodies[saved->count++].failed);
}

static void save_head(struct engine *engine, struct saved *saved, struct moment now)
{
    saved->head = new_writer();
    engine_save_head(engine, now, &saved->head);
    CHECK(!saved->head.failed);
}

static struct saved save(struct engine *engine, struct moment now)
{
    struct saved saved = {0};
    CHECK(engine_begin_save(engine));
    while (saved.count < engine->partition_count)
        save_one(engine, &saved, now);
    save_head(engine, &saved, now);
    engine_end_save(engine, true);
    return saved;
}

static enum restore_status restore_into(struct engine *engine, const struct saved *saved,
                                        struct moment now, struct batch_fault *fault)
{
    enum restore_status status =
        engine_restore_head(engine, saved->head.bytes, saved->head.length, now, fault);
    for (uint32_t at = 0; status == RESTORE_OK && at < saved->count; at++)
        status = engine_restore_partition(engine, saved->bodies[at].bytes,
                                          saved->bodies[at].length, now, fault);
    return status == RESTORE_OK ? engine_restore_end(engine, fault) : status;
}

static void restore(struct engine *engine, uint32_t partitions, const struct saved *saved,
                    struct moment now)
{
    struct batch_fault fault;
    CHECK(engine_init(engine, partitions, 77 + partitions, NULL, NULL) == 0);
    enum restore_status status = restore_into(engine, saved, now, &fault);
    snprintf(check_context, sizeof check_context, "(%s, byte %zu)", fault.message, fault.offset);
    CHECK(status == RESTORE_OK);
    check_context[0] = 0;
    for (uint32_t at = 0; at < partitions; at++)
        partition_lateness(&engine->partitions[at], 5000);
    audit(engine);
}

static void end(struct engine *engine)
{
    audit(engine);
    engine_free(engine);
    CHECK(engine->memory.used == 0);
}

static void check_same(struct engine *one, struct engine *other)
{
    struct msgpack_writer left = dump(one), right = dump(other);
    CHECK(same_bytes(&left, &right));
    msgpack_writer_free(&left);
    msgpack_writer_free(&right);
}

static bool same_saved(const struct saved *one, const struct saved *other)
{
    bool same = one->count == other->count && same_bytes(&one->head, &other->head);
    for (uint32_t at = 0; same && at < one->count; at++)
        same = same_bytes(&one->bodies[at], &other->bodies[at]);
    return same;
}

/* ---- a life with something of everything ------------------------------------------------------------ */

static const char *key_name(unsigned number)
{
    static char name[48];
    snprintf(name, sizeof name, "Table%u:object-%u", number % 3, number);
    return name;
}

static void configure(struct engine *engine)
{
    const struct specification first[] = {{"Sum", "", 1, 2},   {"Sum", "EWM", 0.5, 1},
                                          {"Min", "", 1, 1},   {"Max", "EWM", 0.1, 3},
                                          {"Count", "", 1, 0}, {"Avg", "EWM", 0.3, 2}};
    const struct specification second[] = {{"Last", "", 1, 1}, {"Last", "EWM", 0.2, 2}};
    const struct specification third[] = {{"Sum", "", 1, 1}, {"Sum", "EWM", 0.1, 1}};
    const struct metric metrics[] = {new_metric("S-a", first, 6), new_metric("S-b", second, 2),
                                     new_metric("T-x", third, 2)};
    CHECK(engine_configure(engine, metrics, 3, 5000) == 0);
}

static void advance(struct engine *engine, struct moment now)
{
    for (uint32_t at = 0; at < engine->partition_count; at++)
        engine_advance(engine, at, now);
}

static void write_real(struct msgpack_writer *batch, const char *name, double value)
{
    write_text(batch, name);
    msgpack_write_double(batch, value);
}

/* A numbered batch about some of the keys, other ones and other values each time. */
static struct msgpack_writer write_samples(const char *source, uint64_t seq, uint64_t number)
{
    struct msgpack_writer batch = open_batch(source, 7, seq, KEYS);
    for (unsigned at = 0; at < KEYS; at++) {
        unsigned key = (at * 7 + (unsigned)number) % (KEYS + 5);
        if ((at + number) % 11 == 0) {
            msgpack_write_array(&batch, 3);
            write_text(&batch, key_name(key));
            write_text(&batch, "T");
            msgpack_write_nil(&batch);
        } else if (at % 3 == 0) {
            open_record(&batch, key_name(key), "T", 2, false);
            write_natural(&batch, "x", number * at);
            write_text(&batch, "text");
            write_text(&batch, at % 2 ? "short" : "a text that does not fit into the slot");
        } else {
            open_record(&batch, key_name(key), "S", 3, false);
            write_real(&batch, "a", (double)number * 0.37 - at);
            write_real(&batch, "b", at * 1.1);
            write_natural(&batch, at % 2 ? "odd" : "even", number);
        }
    }
    return batch;
}

static enum outcome_status take(struct engine *engine, struct msgpack_writer *batch,
                                struct moment now)
{
    struct message message = {(const char *)batch->bytes, batch->length, NULL};
    struct outcome outcome;
    engine_apply(engine, &message, 1, now, &outcome);
    msgpack_writer_free(batch);
    return outcome.status;
}

static enum outcome_status send(struct engine *engine, const char *source, uint64_t seq,
                                uint64_t number, struct moment now)
{
    struct msgpack_writer batch = write_samples(source, seq, number);
    return take(engine, &batch, now);
}

/* A key of which no more is heard. */
static void tell_once(struct engine *engine, struct moment now)
{
    struct msgpack_writer batch = open_batch("one", 0, 0, 1);
    open_record(&batch, "Sleeping:key", "T", 1, false);
    write_natural(&batch, "x", 5);
    CHECK(take(engine, &batch, now) == OUTCOME_APPLIED);
}

static void tell_aggtypes(struct engine *engine, struct moment now)
{
    struct msgpack_writer batch = new_writer();
    msgpack_write_map(&batch, 3);
    write_text(&batch, "source");
    write_text(&batch, "unnumbered");
    write_text(&batch, "records");
    msgpack_write_array(&batch, 0);
    write_text(&batch, "aggtypes");
    msgpack_write_map(&batch, 1);
    write_text(&batch, "S");
    msgpack_write_map(&batch, 2);
    write_text(&batch, "a");
    write_text(&batch, "sum");
    write_text(&batch, "b");
    write_text(&batch, "append:name");
    CHECK(take(engine, &batch, now) == OUTCOME_APPLIED);
}

static struct moment after(uint64_t time)
{
    return (struct moment){START + time, START / 2 + time};
}

static void expire(struct engine *engine, struct moment now, uint64_t timeout)
{
    struct msgpack_writer names = new_writer();
    engine_expire(engine, now.steady, timeout, &names);
    msgpack_writer_free(&names);
}

/* Sources that come and go, values short and long, periods closed, open and ended. */
static void live_a_while(struct engine *engine)
{
    CHECK(engine_init(engine, PARTITIONS, 5, NULL, NULL) == 0);
    configure(engine);
    tell_once(engine, after(0));
    CHECK(send(engine, "early", 1, 3, after(0)) == OUTCOME_APPLIED);
    CHECK(send(engine, "earlier", 1, 4, after(SECOND)) == OUTCOME_APPLIED);
    for (uint64_t turn = 1; turn < 40; turn++) {
        struct moment now = after(turn * 17 * SECOND);
        CHECK(send(engine, "one", turn, turn, now) == OUTCOME_APPLIED);
        CHECK(send(engine, "two:a:b:0", turn, turn * 3, now) == OUTCOME_APPLIED);
        if (turn == 20)
            expire(engine, now, 3 * MINUTE);
        advance(engine, now);
    }
    tell_aggtypes(engine, after(40 * 17 * SECOND));
    CHECK(engine->oldest_gone != NONE);
    advance(engine, after(40 * 17 * SECOND));
}

static const uint64_t LIVED = 40 * 17 * 1000000;

/* What one does, the other does too. */
static void go_on_together(struct engine *one, struct engine *other, uint64_t from)
{
    engine_settle_all(one);
    engine_settle_all(other);
    for (uint64_t turn = 40; turn < 60; turn++) {
        struct moment now = after(from + (turn - 39) * 23 * SECOND);
        CHECK(send(one, "one", turn, turn, now) == send(other, "one", turn, turn, now));
        CHECK(send(one, "two:a:b:0", turn, turn * 3, now) ==
              send(other, "two:a:b:0", turn, turn * 3, now));
        advance(one, now);
        advance(other, now);
        check_same(one, other);
    }
    for (uint64_t minute = 10; minute < 20; minute++) { /* all falls asleep, or ends */
        advance(one, after(from + minute * MINUTE));
        advance(other, after(from + minute * MINUTE));
        check_same(one, other);
    }
}

/* ---- tests ------------------------------------------------------------------------------------------- */

static uint32_t count_asleep(const struct engine *engine)
{
    uint32_t asleep = 0;
    for (uint32_t at = 0; at < engine->partition_count; at++) {
        const struct partition *partition = &engine->partitions[at];
        for (uint32_t number = 0; number < partition->metric_count; number++) {
            const struct metric *metric = &partition->metrics[number];
            asleep += metric->pool.live;
            for (uint32_t id = 0; id < pool_ids(&metric->pool); id++)
                asleep -= series_at(metric, id)->live != 0;
        }
    }
    return asleep;
}

static void test_comes_back_as_it_was(void)
{
    struct engine engine, again;
    live_a_while(&engine);
    CHECK(count_asleep(&engine) > 0);
    struct saved saved = save(&engine, after(LIVED));
    restore(&again, PARTITIONS, &saved, after(LIVED));
    check_same(&engine, &again);
    struct saved second = save(&again, after(LIVED));
    engine_free(&again);
    restore(&again, PARTITIONS, &second, after(LIVED));
    struct saved third = save(&again, after(LIVED));
    CHECK(same_saved(&second, &third)); /* ids were made dense by the first */
    go_on_together(&engine, &again, LIVED);
    free_saved(&saved);
    free_saved(&second);
    free_saved(&third);
    end(&again);
    end(&engine);
}

static void test_partitions_may_be_others(void)
{
    struct engine engine, again;
    live_a_while(&engine);
    struct saved saved = save(&engine, after(LIVED));
    for (uint32_t partitions = 1; partitions < MOST_PARTITIONS; partitions++) {
        restore(&again, partitions, &saved, after(LIVED));
        struct msgpack_writer left = dump(&engine), right = dump(&again);
        CHECK(partitions != 1 || left.length > right.length); /* tables stand once a partition */
        msgpack_writer_free(&left);
        msgpack_writer_free(&right);
        struct saved second = save(&again, after(LIVED));
        engine_free(&again);
        restore(&again, PARTITIONS, &second, after(LIVED));
        check_same(&engine, &again);
        free_saved(&second);
        end(&again);
    }
    free_saved(&saved);
    end(&engine);
}

/* More of everything than is taken at once: records of a key, attributes, lanes; values deep and long. */
static void live_widely(struct engine *engine)
{
    CHECK(engine_init(engine, 2, 5, NULL, NULL) == 0);
    configure(engine);
    for (unsigned number = 0; number < 700; number++) {
        char name[16];
        snprintf(name, sizeof name, "source-%u", number);
        struct msgpack_writer batch = open_batch(name, 0, 0, 2);
        open_record(&batch, "Table:wide", "S", 2, false);
        write_real(&batch, "b", number * 0.1);
        write_natural(&batch, "c", number);
        unsigned attributes = number < 100 ? RECORD_SLOTS : 2;
        open_record(&batch, key_name(number % 50), "Wide", attributes, false);
        for (unsigned at = 0; at < attributes; at++) {
            snprintf(name, sizeof name, "n%u", at);
            write_text(&batch, name);
            for (unsigned depth = 0; at == 1 && depth < MSGPACK_NESTING - 4; depth++)
                msgpack_write_array(&batch, 1);
            msgpack_write_uint(&batch, at * number);
        }
        CHECK(take(engine, &batch, after(number * SECOND / 10)) == OUTCOME_APPLIED);
    }
}

static void test_more_than_is_taken_at_once(void)
{
    struct engine engine, again;
    live_widely(&engine);
    struct saved saved = save(&engine, after(MINUTE));
    restore(&again, 2, &saved, after(MINUTE));
    check_same(&engine, &again);
    for (uint64_t minute = 1; minute < 4; minute++) {
        advance(&engine, after(minute * MINUTE + 30 * SECOND));
        advance(&again, after(minute * MINUTE + 30 * SECOND));
        check_same(&engine, &again);
    }
    free_saved(&saved);
    end(&again);
    end(&engine);
}

/* The steady clock of another run counts from elsewhere; how long it was away the wall clock tells. */
static void test_time_that_passed_is_silence(void)
{
    static const uint64_t AWAY[] = {0, SECOND, 7 * SECOND, MINUTE, 3 * MINUTE, HOUR, 100 * HOUR};
    for (unsigned at = 0; at < sizeof AWAY / sizeof *AWAY; at++) {
        struct engine engine, again;
        live_a_while(&engine);
        struct saved saved = save(&engine, after(LIVED));
        struct moment here = after(LIVED + AWAY[at]);
        struct moment there = {here.wall, START / (1 + at)};
        restore(&again, PARTITIONS, &saved, there);
        engine_settle_all(&again);
        for (uint64_t second = 0; second < 200; second += 3) {
            struct moment now = {here.wall + second * SECOND, here.steady + second * SECOND};
            advance(&engine, now);
            now.steady = there.steady + second * SECOND;
            advance(&again, now);
            check_same(&engine, &again);
        }
        free_saved(&saved);
        end(&again);
        end(&engine);
    }
}

/* Partitions are saved at different moments, batches between them; the machine dies; all that is
 * not durable is sent again, some of it twice. */
static void replay(uint32_t partitions, bool saves_again)
{
    struct engine engine, again;
    struct saved saved = {0};
    uint64_t turn = 1;
    CHECK(engine_init(&engine, PARTITIONS, 5, NULL, NULL) == 0);
    configure(&engine);
    for (; turn < 10; turn++)
        CHECK(send(&engine, "one", turn, turn, after(turn * SECOND)) == OUTCOME_APPLIED);
    CHECK(engine_begin_save(&engine));
    while (saved.count < PARTITIONS) {
        save_one(&engine, &saved, after(turn * SECOND));
        for (unsigned more = 0; more < 3; more++, turn++) {
            CHECK(send(&engine, "one", turn, turn, after(turn * SECOND)) == OUTCOME_APPLIED);
            CHECK(send(&engine, "two:a:b:0", turn - 9, turn, after(turn * SECOND)) ==
                  OUTCOME_APPLIED);
        }
    }
    save_head(&engine, &saved, after(turn * SECOND));
    restore(&again, partitions, &saved, after(turn * SECOND));
    CHECK(again.awaited == 2 && again.replay.behind == 2 && again.untold);
    CHECK(again.sources[0].seq == 9 && again.sources[0].durable == 9);
    CHECK(again.sources[0].ahead == 15 && again.sources[1].seq == 0);
    CHECK(send(&again, "one", turn, turn, after(turn * SECOND)) == OUTCOME_RESYNC);
    for (uint64_t number = 10; number < turn; number++) {
        struct moment then = after(number * SECOND);
        CHECK(send(&again, "one", number, number, then) == OUTCOME_APPLIED);
        CHECK(send(&again, "one", number, number, then) == OUTCOME_DUPLICATE);
        CHECK(send(&again, "two:a:b:0", number - 9, number, then) == OUTCOME_APPLIED);
        if (saves_again && number == 12) { /* it dies a second time, in the middle of that */
            CHECK(engine_begin_save(&again) == (partitions == PARTITIONS));
            engine_end_save(&again, false);
            if (partitions != PARTITIONS)
                continue;
            free_saved(&saved);
            saved = save(&again, then);
            end(&again);
            restore(&again, partitions, &saved, then);
            CHECK(again.sources[0].seq == 12 && again.sources[0].ahead == 15);
        }
    }
    CHECK(again.replay.behind == 0 && again.replay.seqs == NULL);
    engine_end_save(&engine, false);
    struct saved left = save(&engine, after(turn * SECOND)), right = save(&again, after(turn * SECOND));
    end(&engine);
    end(&again);
    restore(&engine, 2, &left, after(turn * SECOND));
    restore(&again, 2, &right, after(turn * SECOND));
    check_same(&engine, &again);
    go_on_together(&engine, &again, turn * SECOND);
    free_saved(&saved);
    free_saved(&left);
    free_saved(&right);
    end(&engine);
    end(&again);
}

static void test_a_replay_counts_once(void)
{
    for (uint32_t partitions = 1; partitions < MOST_PARTITIONS; partitions++) {
        replay(partitions, false);
        replay(partitions, true);
    }
}

/* A source that never comes back must not keep anything from being saved. */
static void test_who_is_gone_is_not_waited_for(void)
{
    struct engine engine, again;
    struct saved saved = {0};
    CHECK(engine_init(&engine, PARTITIONS, 5, NULL, NULL) == 0);
    configure(&engine);
    CHECK(engine_begin_save(&engine));
    save_one(&engine, &saved, after(0));
    CHECK(send(&engine, "one", 1, 1, after(0)) == OUTCOME_APPLIED);
    while (saved.count < PARTITIONS)
        save_one(&engine, &saved, after(0));
    save_head(&engine, &saved, after(0));
    end(&engine);
    restore(&again, 5, &saved, after(0));
    CHECK(again.replay.behind == 1 && !engine_begin_save(&again));
    expire(&again, after(HOUR), MINUTE);
    CHECK(engine_begin_save(&again));
    CHECK(again.replay.behind == 0);
    engine_end_save(&again, true);
    free_saved(&saved);
    end(&again);
}

static void test_what_is_durable(void)
{
    struct engine engine;
    CHECK(engine_init(&engine, PARTITIONS, 5, NULL, NULL) == 0);
    CHECK(send(&engine, "one", 1, 1, after(0)) == OUTCOME_APPLIED);
    CHECK(engine_begin_save(&engine) && !engine_begin_save(&engine));
    CHECK(send(&engine, "one", 2, 2, after(0)) == OUTCOME_APPLIED);
    CHECK(send(&engine, "late", 1, 1, after(0)) == OUTCOME_APPLIED);
    engine_end_save(&engine, false);
    CHECK(engine.sources[0].durable == 0 && !engine.untold);
    CHECK(engine_begin_save(&engine));
    CHECK(send(&engine, "one", 3, 2, after(0)) == OUTCOME_APPLIED);
    engine_end_save(&engine, true);
    CHECK(engine.sources[0].durable == 2 && engine.sources[1].durable == 1 && engine.untold);
    CHECK(engine_begin_save(&engine));
    struct msgpack_writer batch = open_batch("one", 8, 1, 0); /* another run of the source */
    CHECK(take(&engine, &batch, after(0)) == OUTCOME_APPLIED);
    engine_end_save(&engine, true);
    CHECK(engine.sources[0].durable == 0);
    end(&engine);
}

/* A partition that was saved before a source began anew has nothing of its new run. */
static void test_epochs_do_not_mix(void)
{
    struct engine engine, again;
    struct saved saved = {0};
    CHECK(engine_init(&engine, 2, 5, NULL, NULL) == 0);
    for (uint64_t seq = 1; seq < 5; seq++)
        CHECK(send(&engine, "one", seq, seq, after(0)) == OUTCOME_APPLIED);
    CHECK(engine_begin_save(&engine));
    save_one(&engine, &saved, after(0));
    struct msgpack_writer batch = open_batch("one", 9, 1, 0);
    CHECK(take(&engine, &batch, after(0)) == OUTCOME_APPLIED);
    save_one(&engine, &saved, after(0));
    save_head(&engine, &saved, after(0));
    restore(&again, 2, &saved, after(0));
    const struct source *source = &again.sources[0];
    CHECK(source->epoch == 9 && source->seq == 0 && source->ahead == 1 && source->durable == 0);
    free_saved(&saved);
    engine_end_save(&engine, false);
    end(&again);
    end(&engine);
}

/* None goes between one partition's saving and another's, but afterwards. */
static void test_no_source_goes_meanwhile(void)
{
    struct engine engine, again;
    struct saved saved = {0};
    CHECK(engine_init(&engine, PARTITIONS, 5, NULL, NULL) == 0);
    configure(&engine);
    CHECK(send(&engine, "one", 1, 1, after(0)) == OUTCOME_APPLIED);
    CHECK(send(&engine, "two:a:b:0", 1, 2, after(2 * HOUR)) == OUTCOME_APPLIED);
    CHECK(engine_begin_save(&engine));
    save_one(&engine, &saved, after(2 * HOUR));
    expire(&engine, after(2 * HOUR), HOUR);
    while (saved.count < PARTITIONS)
        save_one(&engine, &saved, after(2 * HOUR));
    save_head(&engine, &saved, after(2 * HOUR));
    engine_end_save(&engine, true);
    restore(&again, PARTITIONS, &saved, after(2 * HOUR));
    check_same(&engine, &again);
    CHECK(!engine.sources[0].gone && !again.sources[0].gone && again.awaited == 2);
    expire(&engine, after(2 * HOUR), HOUR);
    CHECK(engine.sources[0].gone && engine.sources[0].bereft && !engine.sources[1].gone);
    free_saved(&saved);
    end(&again);
    end(&engine);
}

/* Metrics that were configured between one partition's saving and another's. */
static void test_a_configuration_that_changes_meanwhile(void)
{
    struct engine engine, again;
    struct saved saved = {0};
    live_a_while(&engine);
    CHECK(engine_begin_save(&engine));
    save_one(&engine, &saved, after(LIVED));
    const struct specification other[] = {{"Sum", "EWM", 0.5, 1}, {"Last", "", 1, 1}};
    const struct metric metrics[] = {new_metric("S-even", other, 2), new_metric("S-a", other, 2)};
    CHECK(engine_configure(&engine, metrics, 2, 5000) == 0);
    while (saved.count < PARTITIONS)
        save_one(&engine, &saved, after(LIVED));
    save_head(&engine, &saved, after(LIVED));
    engine_end_save(&engine, true);
    restore(&again, PARTITIONS, &saved, after(LIVED));
    check_same(&engine, &again);
    go_on_together(&engine, &again, LIVED);
    free_saved(&saved);
    end(&again);
    end(&engine);
}

static const char *refused(const struct saved *saved, uint32_t partitions, uint64_t names)
{
    struct engine engine;
    struct batch_fault fault;
    CHECK(engine_init(&engine, partitions, names, NULL, NULL) == 0);
    CHECK(restore_into(&engine, saved, after(LIVED), &fault) == RESTORE_BROKEN);
    CHECK(fault.message[0] != 0);
    engine_free(&engine);
    CHECK(engine.memory.used == 0);
    return fault.message;
}

static void test_parts_that_do_not_belong_together(void)
{
    struct engine engine;
    struct batch_fault fault;
    live_a_while(&engine);
    struct saved saved = save(&engine, after(LIVED)), wrong = saved;
    CHECK(restore_into(&engine, &saved, after(LIVED), &fault) == RESTORE_BROKEN); /* in use */
    wrong.count--;
    CHECK(strstr(refused(&wrong, 3, 1), "missing"));
    wrong = saved;
    wrong.bodies[1] = saved.bodies[0];
    CHECK(strstr(refused(&wrong, 3, 1), "out of order"));
    wrong = saved;
    wrong.bodies[0] = saved.bodies[1];
    wrong.bodies[1] = saved.bodies[0];
    CHECK(strstr(refused(&wrong, 2, 1), "out of order"));
    wrong = saved;
    wrong.bodies[wrong.count++] = saved.bodies[0];
    CHECK(strstr(refused(&wrong, 3, 1), "one too many"));
    struct saved later = save(&engine, after(LIVED));
    wrong = saved;
    wrong.head = later.bodies[0];
    CHECK(refused(&wrong, 3, 1));
    CHECK(send(&engine, "one", 40, 1, after(LIVED)) == OUTCOME_APPLIED);
    free_saved(&later);
    later = save(&engine, after(LIVED));
    wrong = later;
    wrong.head = saved.head;
    CHECK(strstr(refused(&wrong, 3, 1), "ahead of the head"));
    CHECK(engine_restore_partition(&engine, saved.bodies[0].bytes, saved.bodies[0].length,
                                   after(LIVED), &fault) == RESTORE_BROKEN);
    free_saved(&saved);
    free_saved(&later);
    end(&engine);
}

/* ---- bytes that are wrong ------------------------------------------------------------------------------ */

static void live_briefly(struct engine *engine)
{
    CHECK(engine_init(engine, 2, 5, NULL, NULL) == 0);
    configure(engine);
    for (uint64_t seq = 1; seq < 3; seq++) {
        struct msgpack_writer batch = open_batch("one", 7, seq, 4);
        for (unsigned at = 0; at < 4; at++) {
            open_record(&batch, key_name(at % 3), at % 2 ? "T" : "S", 3, false);
            write_real(&batch, "a", at * 0.5);
            write_natural(&batch, "b", at * seq);
            write_natural(&batch, "x", at * 1000);
        }
        CHECK(apply(engine, &batch, START + seq * 40 * SECOND) == OUTCOME_APPLIED);
    }
    advance(engine, both(START + 2 * MINUTE));
    tell_aggtypes(engine, both(START + 2 * MINUTE));
}

/* Bytes that are taken must make an engine that adds up, and goes on. */
static bool try_bytes(const struct saved *saved)
{
    struct engine engine;
    struct batch_fault fault = {0};
    CHECK(engine_init(&engine, 2, 3, NULL, NULL) == 0);
    enum restore_status status = restore_into(&engine, saved, both(START + 2 * MINUTE), &fault);
    CHECK(status != RESTORE_NO_MEMORY);
    if (status == RESTORE_OK) {
        audit(&engine);
        engine_settle_all(&engine);
        advance(&engine, both(START + 10 * MINUTE));
        send(&engine, "one", 3, 9, both(START + 10 * MINUTE));
        struct msgpack_writer told = dump(&engine);
        msgpack_writer_free(&told);
        audit(&engine);
    } else {
        CHECK(fault.message[0] != 0);
    }
    engine_free(&engine);
    CHECK(engine.memory.used == 0);
    return status == RESTORE_OK;
}

static void try_part(struct saved *saved, struct msgpack_writer *part)
{
    const struct msgpack_writer whole = *part;
    for (size_t length = 0; length < whole.length; length++) {
        snprintf(check_context, sizeof check_context, "(cut at %zu)", length);
        part->bytes = malloc(length ? length : 1); /* so that a read behind its end is seen */
        part->length = length;
        memcpy(part->bytes, whole.bytes, length);
        CHECK(!try_bytes(saved));
        free(part->bytes);
    }
    *part = whole;
    for (size_t at = 0; at < whole.length; at++) {
        uint8_t was = part->bytes[at];
        snprintf(check_context, sizeof check_context, "(byte %zu)", at);
        for (unsigned bit = 0; bit < 8; bit++) {
            part->bytes[at] = was ^ (uint8_t)(1u << bit);
            (void)try_bytes(saved);
        }
        part->bytes[at] = 0xc1;
        (void)try_bytes(saved);
        part->bytes[at] = was;
    }
    check_context[0] = 0;
}

static void test_every_byte_cut_and_flipped(void)
{
    struct engine engine;
    live_briefly(&engine);
    struct saved saved = save(&engine, both(START + 2 * MINUTE));
    CHECK(try_bytes(&saved));
    try_part(&saved, &saved.head);
    for (uint32_t at = 0; at < saved.count; at++)
        try_part(&saved, &saved.bodies[at]);
    CHECK(try_bytes(&saved));
    free_saved(&saved);
    end(&engine);
}

/* ---- memory that fails --------------------------------------------------------------------------------- */

/* True where the nth allocation was asked for. */
static bool restore_with_fault(const struct saved *saved, uint64_t nth, bool ever_after)
{
    struct engine engine;
    struct faults faults = {0};
    struct batch_fault fault;
    CHECK(engine_init(&engine, 4, 3, resize_or_fail, &faults) == 0);
    faults_begin(&faults, nth, ever_after);
    enum restore_status status = restore_into(&engine, saved, after(LIVED), &fault);
    bool failed = faults_end(&faults);
    CHECK(status == (failed ? RESTORE_NO_MEMORY : RESTORE_OK));
    engine_free(&engine);
    CHECK(engine.memory.used == 0);
    return failed;
}

static void test_restoring_without_memory(void)
{
    struct engine engine;
    live_a_while(&engine);
    struct saved saved = save(&engine, after(LIVED));
    uint64_t nth = 1;
    for (; restore_with_fault(&saved, nth, false); nth++)
        if (nth % 7 == 0)
            restore_with_fault(&saved, nth, true);
    CHECK(nth > 200);
    free_saved(&saved);
    end(&engine);
}

static void test_saving_without_memory(void)
{
    struct engine engine;
    struct faults faults;
    struct memory memory;
    memory_init(&memory);
    memory.resize = resize_or_fail;
    memory.context = &faults;
    live_a_while(&engine);
    struct msgpack_writer before = dump(&engine);
    for (uint64_t nth = 1, failed = 1; failed > 0; nth++) {
        struct msgpack_writer writer = {.memory = &memory};
        CHECK(engine_begin_save(&engine));
        faults_begin(&faults, nth, nth % 2);
        engine_save_partition(&engine, 0, after(LIVED), &writer);
        failed = faults_end(&faults);
        CHECK(writer.failed == (failed > 0));
        msgpack_writer_free(&writer);
        faults_begin(&faults, nth, nth % 2);
        engine_save_head(&engine, after(LIVED), &writer);
        CHECK(writer.failed == faults_end(&faults));
        msgpack_writer_free(&writer);
        engine_end_save(&engine, false);
    }
    struct msgpack_writer now = dump(&engine);
    CHECK(same_bytes(&before, &now) && memory.used == 0);
    msgpack_writer_free(&before);
    msgpack_writer_free(&now);
    end(&engine);
}

int main(void)
{
    RUN(test_comes_back_as_it_was);
    RUN(test_partitions_may_be_others);
    RUN(test_more_than_is_taken_at_once);
    RUN(test_time_that_passed_is_silence);
    RUN(test_a_replay_counts_once);
    RUN(test_who_is_gone_is_not_waited_for);
    RUN(test_what_is_durable);
    RUN(test_epochs_do_not_mix);
    RUN(test_no_source_goes_meanwhile);
    RUN(test_a_configuration_that_changes_meanwhile);
    RUN(test_parts_that_do_not_belong_together);
    RUN(test_every_byte_cut_and_flipped);
    RUN(test_restoring_without_memory);
    RUN(test_saving_without_memory);
    return 0;
}
