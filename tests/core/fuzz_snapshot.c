/* Arbitrary bytes as a snapshot.
 *
 * The input is a byte, for the number of partitions of the engine, and then the parts of a snapshot,
 * the head first: each its length in two bytes, and its bytes. Most are refused. What is taken must
 * make an engine that adds up; that can be saved, and comes back from that as it was; and that goes
 * on: batches, periods that close, sources that go.
 *
 * Built with -DLIBFUZZER this is a libFuzzer target. Without it has a main of its own:
 *     fuzz_snapshot -w DIRECTORY                        writes snapshots to begin with
 *     fuzz_snapshot [-n MUTATIONS] [-s SEED] FILE...
 * lives every file, and then mutations of them. */
#include "harness.h"

#include "hash.h"

enum { PARTITIONS = 2, MOST_PARTITIONS = 4, PARTS = 8, LAG = 5000 };
static const uint64_t START = 1700000040000000, SECOND = 1000000, MINUTE = 60000000;

/* ---- parts --------------------------------------------------------------------------------------------- */

struct part {
    uint8_t *bytes; /* a copy, so that a read behind its end is seen */
    size_t length;
};

/* Cut the input into its parts; returns how many. */
static uint32_t cut(const uint8_t *bytes, size_t length, struct part *parts)
{
    uint32_t count = 0;
    while (count < PARTS && length > 2) {
        size_t size = (size_t)bytes[0] << 8 | bytes[1];
        size = size < length - 2 ? size : length - 2;
        parts[count].bytes = malloc(size ? size : 1);
        parts[count].length = size;
        memcpy(parts[count++].bytes, bytes + 2, size);
        bytes += 2 + size;
        length -= 2 + size;
    }
    return count;
}

static enum restore_status restore(struct engine *engine, const struct part *parts, uint32_t count,
                                   struct moment now)
{
    struct batch_fault fault = {0};
    enum restore_status status =
        engine_restore_head(engine, parts[0].bytes, parts[0].length, now, &fault);
    for (uint32_t at = 1; status == RESTORE_OK && at < count; at++)
        status = engine_restore_partition(engine, parts[at].bytes, parts[at].length, now, &fault);
    if (status == RESTORE_OK)
        status = engine_restore_end(engine, &fault);
    CHECK(status == RESTORE_OK || (status == RESTORE_BROKEN && fault.message[0] != 0));
    return status;
}

/* Save an engine as parts; returns how many, or 0 where that can't be now. */
static uint32_t save(struct engine *engine, struct part *parts, struct moment now)
{
    uint32_t count = 0;
    if (!engine_begin_save(engine))
        return 0;
    for (uint32_t at = 0; at <= engine->partition_count; at++) {
        struct msgpack_writer writer = new_writer();
        if (at == engine->partition_count)
            engine_save_head(engine, now, &writer);
        else
            engine_save_partition(engine, at, now, &writer);
        CHECK(!writer.failed);
        struct part *part = &parts[at == engine->partition_count ? 0 : at + 1];
        part->bytes = malloc(writer.length);
        part->length = writer.length;
        memcpy(part->bytes, writer.bytes, writer.length);
        msgpack_writer_free(&writer);
        count++;
    }
    engine_end_save(engine, true);
    return count;
}

static void free_parts(struct part *parts, uint32_t count)
{
    for (uint32_t at = 0; at < count; at++)
        free(parts[at].bytes);
}

/* ---- what is taken --------------------------------------------------------------------------------------- */

static void check_comes_back(struct engine *engine, struct moment now)
{
    struct part parts[MOST_PARTITIONS + 1];
    uint32_t count = save(engine, parts, now);
    if (count == 0)
        return;
    struct engine again;
    CHECK(engine_init(&again, engine->partition_count, 9, NULL, NULL) == 0);
    CHECK(restore(&again, parts, count, now) == RESTORE_OK);
    audit(&again);
    struct msgpack_writer one = dump(engine), other = dump(&again);
    CHECK(same_bytes(&one, &other));
    msgpack_writer_free(&one);
    msgpack_writer_free(&other);
    free_parts(parts, count);
    engine_free(&again);
    CHECK(again.memory.used == 0);
}

/* Whether a series has so many periods to close that it would take long. */
static bool lags(const struct engine *engine)
{
    for (uint32_t at = 0; at < engine->partition_count; at++) {
        const struct partition *partition = &engine->partitions[at];
        for (uint32_t number = 0; number < partition->metric_count; number++) {
            const struct metric *metric = &partition->metrics[number];
            for (uint32_t id = 0; id < pool_ids(&metric->pool); id++) {
                const struct series *series = series_at(metric, id);
                if (series->live && series->next < START / PERIOD_US - LAG)
                    return true;
            }
        }
    }
    return false;
}

static void write_batch(struct msgpack_writer *batch, unsigned turn)
{
    static const char *const attributes[] = {"a", "b", "text"};
    for (unsigned at = 0; at < 6; at++) {
        char key[16];
        snprintf(key, sizeof key, "T%u:%u", at % 2, at % 3);
        open_record(batch, key, at % 3 ? "S" : "T", 3, false);
        for (unsigned one = 0; one < 3; one++)
            write_natural(batch, attributes[one], (uint64_t)turn * (at + one) << (one * 8));
    }
}

static void go_on(struct engine *engine, uint64_t now)
{
    for (unsigned turn = 1; turn < 5; turn++) {
        now += 45 * SECOND;
        struct msgpack_writer batch = open_batch(turn % 2 ? "one" : "two", 7, turn, 6);
        write_batch(&batch, turn);
        (void)apply(engine, &batch, now);
        batch = open_batch("three", 0, 0, 6);
        write_batch(&batch, turn);
        (void)apply(engine, &batch, now);
        if (turn == 2)
            engine_settle_all(engine);
        for (uint32_t at = 0; at < engine->partition_count; at++)
            engine_advance(engine, at, both(now));
        audit(engine);
    }
    check_comes_back(engine, both(now));
    struct msgpack_writer names = new_writer();
    engine_expire(engine, now + 10 * MINUTE, 10 * MINUTE, &names);
    msgpack_writer_free(&names);
    for (uint32_t at = 0; at < engine->partition_count; at++)
        engine_advance(engine, at, both(now + 20 * MINUTE));
    audit(engine);
}

static void live(const uint8_t *bytes, size_t length)
{
    struct part parts[PARTS] = {{NULL, 0}};
    if (length == 0)
        return;
    uint32_t count = cut(bytes + 1, length - 1, parts);
    struct engine engine;
    CHECK(engine_init(&engine, 1 + bytes[0] % MOST_PARTITIONS, bytes[0], NULL, NULL) == 0);
    uint64_t now = START + (bytes[0] >> 2) * SECOND;
    if (restore(&engine, parts, count, both(now)) == RESTORE_OK) {
        audit(&engine);
        check_comes_back(&engine, both(now));
        if (!lags(&engine))
            go_on(&engine, now);
    }
    free_parts(parts, count);
    engine_free(&engine);
    CHECK(engine.memory.used == 0);
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

/* ---- snapshots to begin with ---------------------------------------------------------------------------- */

static void configure(struct engine *engine, unsigned which)
{
    static const struct specification all[] = {{"Sum", "", 1, 2},  {"Sum", "EWM", 0.5, 1},
                                               {"Min", "", 1, 1},  {"Max", "EWM", 0.1, 3},
                                               {"Last", "", 1, 1}, {"Avg", "EWM", 0.3, 2}};
    const struct metric metrics[] = {new_metric("S-a", all, which % 3 ? 2 : 6),
                                     new_metric("T-b", all + 2, 2), new_metric("S-b", all + 4, 1)};
    CHECK(engine_configure(engine, metrics, 1 + which % 3, 5000) == 0);
}

static void make_life(struct engine *engine, unsigned which)
{
    CHECK(engine_init(engine, PARTITIONS, 5, NULL, NULL) == 0);
    configure(engine, which);
    for (unsigned turn = 1; turn < 2 + which; turn++) {
        uint64_t now = START - MINUTE * 4 + turn * 20 * SECOND;
        struct msgpack_writer batch = open_batch("one", 7, turn, 6);
        write_batch(&batch, turn);
        CHECK(apply(engine, &batch, now) == OUTCOME_APPLIED);
        batch = open_batch("two", 0, 0, 6);
        write_batch(&batch, turn * 3);
        CHECK(apply(engine, &batch, now) == OUTCOME_APPLIED);
        for (uint32_t at = 0; at < PARTITIONS; at++)
            engine_advance(engine, at, both(now));
    }
}

static void write_seed(const char *directory, unsigned which)
{
    struct engine engine;
    struct part parts[PARTITIONS + 1];
    char path[256];
    make_life(&engine, which);
    uint32_t count = save(&engine, parts, both(START));
    snprintf(path, sizeof path, "%s/snapshot-%u", directory, which);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fputc((int)which, file) != EOF);
    for (uint32_t at = 0; at < count; at++) {
        const uint8_t size[] = {(uint8_t)(parts[at].length >> 8), (uint8_t)parts[at].length};
        CHECK(parts[at].length <= UINT16_MAX && fwrite(size, 1, 2, file) == 2);
        CHECK(fwrite(parts[at].bytes, 1, parts[at].length, file) == parts[at].length);
    }
    CHECK(fclose(file) == 0);
    free_parts(parts, count);
    engine_free(&engine);
}

int main(int count, char **arguments)
{
    enum { SEEDS = 12 };
    if (count == 3 && strcmp(arguments[1], "-w") == 0) {
        for (unsigned which = 0; which < SEEDS; which++)
            write_seed(arguments[2], which);
        return 0;
    }
    unsigned long mutations = 0;
    int first = read_options(count, arguments, &mutations);
    if (first >= count) {
        fprintf(stderr, "usage: fuzz_snapshot -w DIRECTORY | [-n MUTATIONS] [-s SEED] FILE...\n");
        return 2;
    }
    live_files(count - first, arguments + first, mutations);
    return 0;
}

#endif
