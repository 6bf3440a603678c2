/* An engine that is saved again and again while others are at work on it: one applies, one advances,
 * one reads and takes, one lets sources go. Meant for ThreadSanitizer; what was saved last must come
 * back, and count once what is sent again. */
#include "harness.h"

#include "hash.h"

#include <sched.h>

enum { BATCHES = 600, RECORDS = 40, KEYS = 1000, PARTITIONS = 4 };
static const uint64_t START = 1700000040000000, MINUTE = 60000000;

static struct engine engine;
static atomic_bool finished;
static atomic_uint_fast64_t now;

static void remove_struct(struct msgpack_writer *batch, const char *key)
{
    msgpack_write_array(batch, 3);
    write_text(batch, key);
    write_text(batch, "S");
    msgpack_write_nil(batch);
}

/* Keys that are told of again and again, and such as come with one batch and go with the next. */
static void write_batch(struct msgpack_writer *batch, unsigned number)
{
    for (unsigned at = 0; at < RECORDS; at++) {
        bool brief = at % 4 == 0, goes = brief ? number / 2 % 2 : (number + at) % 5 == 0;
        char key[32];
        snprintf(key, sizeof key, brief ? "Brief%u:%u" : "T%u:%u", at % 3,
                 brief ? (number / 4 * 2 + number % 2) * RECORDS + at
                       : (number * 31 + at * 7) % KEYS);
        if (goes) {
            remove_struct(batch, key);
            continue;
        }
        open_record(batch, key, "S", 2, false);
        write_natural(batch, brief ? "b" : "a", at);
        write_text(batch, "text");
        write_text(batch, "a value of more than fifteen bytes");
    }
}

static void *apply_batches(void *unused)
{
    (void)unused;
    for (unsigned number = 0; number < BATCHES; number++) {
        struct msgpack_writer batch =
            open_batch(number % 2 ? "one" : "two:a:b:0", 1, number / 2 + 1, RECORDS);
        write_batch(&batch, number);
        CHECK(apply(&engine, &batch, atomic_fetch_add(&now, 1300000)) == OUTCOME_APPLIED);
    }
    atomic_store(&finished, true);
    return NULL;
}

static void *advance(void *unused)
{
    (void)unused;
    while (!atomic_load(&finished))
        for (uint32_t at = 0; at < PARTITIONS; at++)
            engine_advance(&engine, at, both(atomic_load(&now)));
    return NULL;
}

static void take(struct partition *partition)
{
    const struct text everything = {"", 0};
    struct msgpack_writer writer = new_writer();
    size_t count, capacity;
    partition_take_changes(partition, ANNOUNCED, &everything, 1, &writer);
    msgpack_writer_free(&writer);
    struct result *results = partition_take_results(partition, &count, &capacity);
    memory_free(&engine.memory, results, capacity * sizeof *results);
}

static void *read_and_take(void *unused)
{
    (void)unused;
    for (unsigned turn = 0; !atomic_load(&finished); turn++) {
        char key[32];
        int length = snprintf(key, sizeof key, "T%u:%u", turn % 3, turn % KEYS);
        struct msgpack_writer writer = new_writer();
        for (uint32_t at = 0; at < PARTITIONS; at++) {
            engine_lock(&engine, at);
            (void)partition_read(&engine.partitions[at], key, (size_t)length, &writer);
            take(&engine.partitions[at]);
            engine_unlock(&engine, at);
        }
        engine_expire(&engine, atomic_load(&now), MINUTE / 2, &writer);
        msgpack_writer_free(&writer);
        sched_yield();
    }
    return NULL;
}

/* The head, and then the partitions. */
static void save(struct msgpack_writer parts[PARTITIONS + 1])
{
    CHECK(engine_begin_save(&engine));
    for (uint32_t at = 0; at < PARTITIONS; at++) {
        msgpack_writer_free(&parts[at + 1]);
        engine_save_partition(&engine, at, both(atomic_load(&now)), &parts[at + 1]);
    }
    msgpack_writer_free(&parts[0]);
    engine_save_head(&engine, both(atomic_load(&now)), &parts[0]);
    engine_end_save(&engine, true);
}

static void check_comes_back(const struct msgpack_writer parts[PARTITIONS + 1])
{
    struct engine again;
    struct batch_fault fault;
    struct moment then = both(atomic_load(&now));
    CHECK(engine_init(&again, PARTITIONS, 9, NULL, NULL) == 0);
    CHECK(engine_restore_head(&again, parts[0].bytes, parts[0].length, then, &fault) ==
          RESTORE_OK);
    for (uint32_t at = 1; at <= PARTITIONS; at++)
        CHECK(engine_restore_partition(&again, parts[at].bytes, parts[at].length, then,
                                       &fault) == RESTORE_OK);
    CHECK(engine_restore_end(&again, &fault) == RESTORE_OK);
    audit(&again);
    engine_free(&again);
    CHECK(again.memory.used == 0);
}

int main(void)
{
    static const struct specification sums[] = {{"Sum", "", 1, 1}, {"Last", "EWM", 0.5, 1}};
    const struct metric metrics[] = {new_metric("S-a", sums, 2)};
    void *(*const works[])(void *) = {apply_batches, advance, read_and_take};
    enum { WORKS = sizeof works / sizeof *works };
    pthread_t threads[WORKS];
    struct msgpack_writer parts[PARTITIONS + 1];
    atomic_store(&now, START);
    for (uint32_t at = 0; at <= PARTITIONS; at++)
        parts[at] = new_writer();
    CHECK(engine_init(&engine, PARTITIONS, 3, NULL, NULL) == 0);
    CHECK(engine_configure(&engine, metrics, 1, 5000) == 0);
    engine.limits.results = 1000;
    for (uint32_t at = 0; at < PARTITIONS; at++)
        partition_watch(&engine.partitions[at], ANNOUNCED, true);
    for (unsigned at = 0; at < WORKS; at++)
        CHECK(pthread_create(&threads[at], NULL, works[at], NULL) == 0);
    unsigned saved = 0;
    for (bool last = false; !last; saved++) {
        last = atomic_load(&finished);
        save(parts);
        check_comes_back(parts);
    }
    for (unsigned at = 0; at < WORKS; at++)
        pthread_join(threads[at], NULL);
    audit(&engine);
    for (uint32_t at = 0; at <= PARTITIONS; at++)
        msgpack_writer_free(&parts[at]);
    engine_free(&engine);
    CHECK(engine.memory.used == 0);
    printf("ok saved %u times meanwhile\n", saved);
    return 0;
}
