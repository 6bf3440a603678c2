/* Several threads at one engine: one applies, one advances, one reads, lists and takes, one
 * configures, one saves, one lets sources go. Meant for ThreadSanitizer; what is checked here is that everything adds up at the
 * end. */
#include "harness.h"

#include "hash.h"

#include <sched.h>

enum { BATCHES = 300, RECORDS = 50, KEYS = 400, PARTITIONS = 4 };
static const uint64_t START = 1700000040000000;

static struct engine engine;
static atomic_bool finished;
static atomic_uint_fast64_t now;
static uint64_t results_taken;

static void write_batch(struct msgpack_writer *writer, unsigned number)
{
    for (unsigned at = 0; at < RECORDS; at++) {
        char key[32];
        snprintf(key, sizeof key, "T%u:%u", at % 3, (number * 31 + at * 7) % KEYS);
        if ((number + at) % 9 == 0) { /* the struct goes */
            msgpack_write_array(writer, 3);
            write_text(writer, key);
            write_text(writer, "S");
            msgpack_write_nil(writer);
            continue;
        }
        open_record(writer, key, "S", 3, false);
        write_natural(writer, "a", at);
        write_natural(writer, "b", number);
        write_text(writer, "text");
        write_text(writer, "a value of more than fifteen bytes");
    }
}

static void *apply_batches(void *unused)
{
    (void)unused;
    for (unsigned number = 0; number < BATCHES; number++) {
        const char *source = number % 2 ? "one" : "two:a:b:0";
        struct msgpack_writer writer = open_batch(source, 1, number / 2 + 1, RECORDS);
        write_batch(&writer, number);
        uint64_t time = atomic_fetch_add(&now, 1300000) + 1300000;
        CHECK(apply(&engine, &writer, time) == OUTCOME_APPLIED);
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

static void read_key(const struct listed_key *key)
{
    uint32_t number = hash_partition((const uint8_t *)key->text, key->length, PARTITIONS);
    struct msgpack_writer view = {.memory = &engine.memory};
    engine_lock(&engine, number);
    bool found = partition_read(&engine.partitions[number], key->text, key->length, &view);
    engine_unlock(&engine, number);
    struct msgpack_reader reader = {view.bytes, view.bytes + view.length};
    CHECK(!found || (msgpack_skip(&reader, 0) == MSGPACK_OK && reader.at == reader.end));
    msgpack_writer_free(&view);
}

static void read_keys(void)
{
    const struct key_query query = {.after = {"", 0}, .match = {"*1*", 3}, .limit = 50};
    struct key_list list;
    engine_keys(&engine, &query, &list);
    for (size_t at = 0; at < list.count; at++)
        read_key(&list.keys[at]);
    key_list_free(&list);
}

static void tell_everything(void)
{
    void (*const tell[])(struct engine *, struct msgpack_writer *) = {
        engine_tables, engine_sources, engine_source_records, engine_aggtypes};
    for (size_t at = 0; at < sizeof tell / sizeof *tell; at++) {
        struct msgpack_writer writer = {.memory = &engine.memory};
        tell[at](&engine, &writer);
        msgpack_writer_free(&writer);
    }
    CHECK(engine_source_count(&engine) <= 2);
    CHECK(engine_own_counters(&engine).records <= BATCHES * RECORDS);
    (void)engine_partition_counters(&engine);
}

static void take(uint32_t number)
{
    const struct text everything = {"", 0};
    struct partition *partition = &engine.partitions[number];
    struct msgpack_writer writer = {.memory = &engine.memory};
    size_t count, capacity;
    engine_lock(&engine, number);
    partition_take_changes(partition, ANNOUNCED, &everything, 1, &writer);
    struct result *results = partition_take_results(partition, &count, &capacity);
    for (size_t at = 0; at < count; at++)
        CHECK(partition->keys.entries[results[at].key] != NULL);
    engine_unlock(&engine, number);
    results_taken += count;
    memory_free(&engine.memory, results, capacity * sizeof *results);
    msgpack_writer_free(&writer);
}

static void *read_and_take(void *unused)
{
    (void)unused;
    for (uint32_t round = 0; !atomic_load(&finished); round++) {
        read_keys();
        tell_everything();
        take(round % PARTITIONS);
    }
    return NULL;
}

static void configure(unsigned round)
{
    const struct specification both[] = {{"Sum", "EWM", 0.5, 1}, {"Last", "", 1, 1}};
    const struct metric metrics[] = {new_metric("S-a", both, 1 + round % 2),
                                     new_metric("S-b", both + 1, 1)};
    CHECK(engine_configure(&engine, metrics, 1 + round / 2 % 2, 5000) == 0);
}

static void *reconfigure(void *unused)
{
    (void)unused;
    for (unsigned round = 0; !atomic_load(&finished); round++) {
        configure(round);
        uint64_t until = atomic_load(&now) + 10000000; /* some batches later */
        while (atomic_load(&now) < until && !atomic_load(&finished))
            sched_yield();
    }
    return NULL;
}

static void *save(void *unused)
{
    (void)unused;
    struct memory memory;
    memory_init(&memory);
    while (!atomic_load(&finished)) {
        CHECK(engine_begin_save(&engine));
        struct moment then = both(atomic_load(&now));
        for (uint32_t at = 0; at <= PARTITIONS; at++) {
            struct msgpack_writer writer = {.memory = &memory};
            if (at < PARTITIONS)
                engine_save_partition(&engine, at, then, &writer);
            else
                engine_save_head(&engine, then, &writer);
            struct msgpack_reader reader = {writer.bytes, writer.bytes + writer.length};
            CHECK(msgpack_skip(&reader, 0) == MSGPACK_OK && reader.at == reader.end);
            msgpack_writer_free(&writer);
            sched_yield();
        }
        engine_end_save(&engine, true);
    }
    CHECK(memory.used == 0);
    return NULL;
}

static void *let_go(void *unused)
{
    (void)unused;
    while (!atomic_load(&finished)) {
        struct msgpack_writer writer = {.memory = &engine.memory};
        engine_expire(&engine, atomic_load(&now), 2600000, &writer);
        engine_untold(&engine, atomic_load(&now), 1300000, &writer);
        msgpack_writer_free(&writer);
        sched_yield();
    }
    return NULL;
}

int main(void)
{
    void *(*const work[])(void *) = {apply_batches, advance, read_and_take,
                                     reconfigure,   save,    let_go};
    enum { THREADS = sizeof work / sizeof *work };
    pthread_t threads[THREADS];
    CHECK(engine_init(&engine, PARTITIONS, 3, NULL, NULL) == 0);
    engine.limits.results = 1000;
    atomic_store(&now, START);
    configure(0);
    for (uint32_t at = 0; at < PARTITIONS; at++)
        partition_watch(&engine.partitions[at], ANNOUNCED, true);
    for (size_t at = 0; at < THREADS; at++)
        CHECK(pthread_create(&threads[at], NULL, work[at], NULL) == 0);
    for (size_t at = 0; at < THREADS; at++)
        CHECK(pthread_join(threads[at], NULL) == 0);
    for (uint32_t at = 0; at < PARTITIONS; at++) {
        engine_advance(&engine, at, both(atomic_load(&now) + 600000000));
        take(at);
    }
    CHECK(engine.counters.records == BATCHES * RECORDS);
    CHECK(results_taken > 0);
    audit(&engine);
    engine_free(&engine);
    CHECK(engine.memory.used == 0);
    printf("ok threads: %d records, %llu results\n", BATCHES * RECORDS,
           (unsigned long long)results_taken);
    return 0;
}
