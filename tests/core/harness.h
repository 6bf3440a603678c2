/* harness.h: what the tests of the C core share: assertions, messages, metrics, memory that fails,
 * and two ways to look at an engine: what it tells (dump), and whether it adds up (audit). */
#ifndef COLLECTORD_TESTS_HARNESS_H
#define COLLECTORD_TESTS_HARNESS_H

#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition))                                                                         \
            check_failed(__FILE__, __LINE__, #condition);                                         \
    } while (0)

/* Run a test function and say so. */
#define RUN(test)                                                                                 \
    do {                                                                                          \
        test();                                                                                   \
        printf("ok %s\n", #test);                                                                 \
    } while (0)

/* What is being tried, for the message of a check that fails. */
extern char check_context[128];

_Noreturn void check_failed(const char *file, int line, const char *condition);

/* ---- memory that fails ------------------------------------------------------------------------- */

/* A context for resize_or_fail, which stands in for realloc. */
struct faults {
    uint64_t asked;   /* allocations since faults_begin */
    uint64_t first;   /* the one that fails, counted from 1; 0: none */
    bool ever_after;  /* all behind it fail too */
    uint64_t refused; /* how many failed */
};

void *resize_or_fail(void *faults, void *block, size_t size);
void faults_begin(struct faults *faults, uint64_t first, bool ever_after);

/* Memory comes again; whether any allocation was refused meanwhile. */
bool faults_end(struct faults *faults);

/* ---- messages ------------------------------------------------------------------------------------ */

/* A writer on memory of its own, which no fault reaches. */
struct msgpack_writer new_writer(void);

/* Begin a batch of `records` records, which must follow; seq 0: without epoch and seq. */
struct msgpack_writer open_batch(const char *source, uint64_t epoch, uint64_t seq,
                                 uint32_t records);

/* A record up to the pairs of its attributes; with a time where `time` is not 0: close_record. */
void open_record(struct msgpack_writer *writer, const char *key, const char *struct_name,
                 uint32_t attributes, bool timed);
void write_text(struct msgpack_writer *writer, const char *text);
void write_natural(struct msgpack_writer *writer, const char *name, uint64_t value);

/* The same time by both clocks. */
static inline struct moment both(uint64_t now)
{
    return (struct moment){now, now};
}

/* Apply what was written, free it, and return the status. */
enum outcome_status apply(struct engine *engine, struct msgpack_writer *writer, uint64_t now);

/* One record of one attribute, as a batch of its own. */
enum outcome_status apply_one(struct engine *engine, const char *source, const char *key,
                              const char *struct_name, const char *attribute, uint64_t value,
                              uint64_t now);

/* ---- metrics --------------------------------------------------------------------------------------- */

struct specification {
    const char *reducer, *detector;
    double alpha;
    uint32_t timeout;
};

/* A metric laid out; its algorithms are named after reducer and detector. */
struct metric new_metric(const char *name, const struct specification *algorithms,
                         unsigned count);

/* ---- looking at an engine ---------------------------------------------------------------------------- */

/* Everything the engine tells, in an order that depends on nothing but its state: keys with their
 * records and proxies, tables, sources, aggtypes, sizes. */
struct msgpack_writer dump(struct engine *engine);
bool same_bytes(const struct msgpack_writer *one, const struct msgpack_writer *other);

/* Append the elements of a msgpack array, sorted by their bytes. */
void append_sorted(struct msgpack_writer *writer, const uint8_t *array, size_t length);

/* Walk everything and check that counts, lists, indexes and references agree with one another.
 * No batch may be under way. */
void audit(struct engine *engine);

#endif
