/* engine.c: from a message to what became of it. */
#include "engine.h"

#include "hash.h"

#include <string.h>

enum {
    CHUNK = 256,        /* records applied under one hold of a partition's lock */
    SHORT_MESSAGE = 512, /* bytes of a message that is applied together with others */
    COMES_AGAIN_US = 5000000 /* who was refused for the moment tries again within this */
};

const char *const outcome_names[OUTCOMES] = {
    "applied", "duplicate", "resync", "malformed", "too_large", "overloaded", "stale_epoch",
    "unauthorised"};

/* ---- beginning and end ----------------------------------------------------------------------------- */

int engine_init(struct engine *engine, uint32_t partitions, uint64_t seed,
                void *(*resize)(void *, void *, size_t), void *context)
{
    *engine = (struct engine){.seed = seed};
    memory_init(&engine->memory);
    if (resize != NULL) {
        engine->memory.resize = resize;
        engine->memory.context = context;
    }
    batch_init(&engine->batch, &engine->memory);
    names_init(&engine->source_names, seed);
    names_init(&engine->aggtypes, seed);
    names_init(&engine->aggtype_texts, seed);
    engine->limits.keys = engine->limits.records = engine->limits.bytes = UINT64_MAX;
    engine->limits.source_records = engine->limits.source_bytes = UINT64_MAX;
    engine->oldest_gone = engine->newest_gone = NONE;
    engine->batch_bytes = engine->source_limit = engine->aggtype_limit = UINT64_MAX;
    if (pthread_mutex_init(&engine->ingest, NULL))
        return -1;
    engine->starts =
        memory_get(&engine->memory, ((size_t)partitions + 1) * sizeof *engine->starts);
    engine->partitions =
        memory_get(&engine->memory, partitions * sizeof *engine->partitions);
    bool good = engine->starts != NULL && engine->partitions != NULL;
    for (; good && engine->partition_count < partitions; engine->partition_count += good)
        good = partition_init(&engine->partitions[engine->partition_count], &engine->memory,
                              &engine->limits, seed) == 0;
    if (good)
        return 0;
    memory_free(&engine->memory, engine->starts,
                engine->starts ? ((size_t)partitions + 1) * sizeof *engine->starts : 0);
    engine->starts = NULL;
    for (; engine->partition_count > 0; engine->partition_count--)
        partition_free(&engine->partitions[engine->partition_count - 1]);
    memory_free(&engine->memory, engine->partitions, partitions * sizeof *engine->partitions);
    pthread_mutex_destroy(&engine->ingest);
    return -1;
}

void engine_free(struct engine *engine)
{
    struct memory *memory = &engine->memory;
    size_t partitions = engine->partition_count;
    for (uint32_t at = 0; at < partitions; at++)
        partition_free(&engine->partitions[at]);
    memory_free(memory, engine->partitions, partitions * sizeof *engine->partitions);
    memory_free(memory, engine->starts, (partitions + 1) * sizeof *engine->starts);
    memory_free(memory, engine->order, engine->order_capacity * sizeof *engine->order);
    memory_free(memory, engine->sources, engine->source_capacity * sizeof *engine->sources);
    memory_free(memory, engine->limits.holdings,
                engine->holding_capacity * sizeof *engine->limits.holdings);
    engine_free_replay(engine);
    batch_free(&engine->batch);
    names_free(&engine->source_names, memory);
    names_free(&engine->aggtypes, memory);
    names_free(&engine->aggtype_texts, memory);
    pthread_mutex_destroy(&engine->ingest);
}

int engine_configure(struct engine *engine, const struct metric *metrics, uint32_t count,
                     uint64_t lateness)
{
    int status = 0;
    pthread_mutex_lock(&engine->ingest);
    for (uint32_t at = 0; status == 0 && at < engine->partition_count; at++) {
        struct partition *partition = &engine->partitions[at];
        pthread_mutex_lock(&partition->lock);
        status = partition_configure(partition, metrics, count);
        if (status == 0)
            partition_lateness(partition, lateness);
        pthread_mutex_unlock(&partition->lock);
    }
    pthread_mutex_unlock(&engine->ingest);
    return status;
}

/* ---- judging ------------------------------------------------------------------------------------------- */

/* Whether who sent the message may speak for the source of the batch. */
static bool may_speak(const struct speaker *speaker, const struct batch *batch)
{
    for (size_t at = 0; speaker != NULL && at < speaker->count; at++)
        if (keys_match(speaker->patterns[at].bytes, speaker->patterns[at].length,
                       (const char *)batch->source, batch->source_length))
            return true;
    return speaker == NULL;
}

/* ---- applying ------------------------------------------------------------------------------------------ */

/* Hash the names of a message's records, those from `first` on; the struct's name is most often the
 * one of the record before. */
static void hash_records(struct engine *engine, uint32_t first, uint32_t holder, uint64_t now)
{
    struct batch *batch = &engine->batch;
    uint64_t time = batch->has_time ? batch->time : now;
    uint32_t source = hash_name(batch->source, batch->source_length, engine->seed);
    uint32_t struct_hash = 0, struct_length = 0;
    const uint8_t *struct_name = NULL;
    for (uint32_t at = first; at < batch->record_count; at++) {
        struct record_in *in = &batch->records[at];
        in->record = NONE;
        in->holder = holder;
        in->passed = false;
        if (!in->timed)
            in->time = time;
        if (in->rejection)
            continue;
        if (in->struct_length != struct_length ||
            memcmp(in->struct_name, struct_name, struct_length) != 0) {
            struct_name = in->struct_name;
            struct_length = in->struct_length;
            struct_hash = hash_name(struct_name, struct_length, engine->seed);
        }
        in->key_hash = hash_name(in->key, in->key_length, engine->seed);
        in->hash = hash_record(in->key_hash, struct_hash, source);
        in->partition =
            (uint16_t)hash_partition(in->key, in->key_length, engine->partition_count);
    }
}

/* After a crash a source sends again what was not saved for good: partitions that were saved later
 * than others pass over what they have. */
static void pass_over(struct engine *engine, uint32_t source)
{
    const struct replay *replay = &engine->replay;
    struct batch *batch = &engine->batch;
    for (uint32_t at = 0; at < batch->record_count; at++) {
        struct record_in *in = &batch->records[at];
        uint32_t partition = hash_partition(in->key, in->key_length, replay->partitions);
        in->passed = !in->rejection &&
                     replay->seqs[(size_t)partition * replay->sources + source] >= batch->seq;
    }
}

static bool is_to_apply(const struct record_in *in)
{
    return !in->rejection && !in->passed;
}

/* Put the good records in order of their partitions, each partition's as they came. Only the
 * partitions from the first to the last that has some are looked at: most messages hold little. */
static int group_records(struct engine *engine)
{
    const struct batch *batch = &engine->batch;
    uint32_t first = engine->partition_count, last = 0, *starts = engine->starts;
    if (memory_reserve(&engine->memory, &engine->order, sizeof *engine->order,
                       &engine->order_capacity, batch->record_count))
        return -1;
    for (uint32_t at = 0; at < batch->record_count; at++) {
        uint32_t partition = batch->records[at].partition;
        if (!is_to_apply(&batch->records[at]))
            continue;
        first = partition < first ? partition : first;
        last = partition > last ? partition : last;
    }
    engine->first_partition = first;
    engine->end_partition = first <= last ? last + 1 : first;
    if (first > last)
        return 0;
    memset(starts + first, 0, ((size_t)last - first + 2) * sizeof *starts);
    for (uint32_t at = 0; at < batch->record_count; at++)
        starts[batch->records[at].partition + 1] += is_to_apply(&batch->records[at]);
    for (uint32_t at = first; at <= last; at++)
        starts[at + 1] += starts[at];
    for (uint32_t at = 0; at < batch->record_count; at++)
        if (is_to_apply(&batch->records[at]))
            engine->order[starts[batch->records[at].partition]++] = at;
    for (uint32_t at = last + 1; at > first; at--) /* each start has moved to its end */
        starts[at] = starts[at - 1];
    starts[first] = 0;
    return 0;
}

static int prepare(struct engine *engine, uint32_t number, struct moment now)
{
    struct partition *partition = &engine->partitions[number];
    int status = 0;
    for (uint32_t at = engine->starts[number]; status == 0 && at < engine->starts[number + 1];) {
        uint32_t left = engine->starts[number + 1] - at, count = left < CHUNK ? left : CHUNK;
        pthread_mutex_lock(&partition->lock);
        partition_steady(partition, now.steady);
        status = partition_prepare(partition, &engine->batch, engine->order + at, count, now.wall);
        pthread_mutex_unlock(&partition->lock);
        at += count;
    }
    return status;
}

static void sweep(struct engine *engine, uint32_t number)
{
    struct partition *partition = &engine->partitions[number];
    bool done = false;
    while (!done) {
        pthread_mutex_lock(&partition->lock);
        done = partition_sweep(partition);
        pthread_mutex_unlock(&partition->lock);
    }
}

static void commit(struct engine *engine, uint32_t number)
{
    struct partition *partition = &engine->partitions[number];
    uint32_t end = engine->starts[number + 1];
    for (uint32_t at = engine->starts[number]; at < end;) {
        uint32_t count = end - at < CHUNK ? end - at : CHUNK;
        pthread_mutex_lock(&partition->lock);
        partition_commit(partition, &engine->batch, engine->order + at, count);
        at += count;
        bool done = at < end || partition_sweep(partition);
        pthread_mutex_unlock(&partition->lock);
        if (!done)
            sweep(engine, number);
    }
}

/* Take away what was made for a batch that is not going to be applied, or not yet. */
static void abandon(struct engine *engine)
{
    batch_drop_blocks(&engine->batch);
    for (uint32_t number = 0; number < engine->partition_count; number++)
        sweep(engine, number);
}

/* 0, NO_MEMORY, or MUST_WAIT. */
static int apply_records(struct engine *engine, struct moment now)
{
    engine->first_partition = engine->end_partition = 0;
    int status = group_records(engine) || engine_take_aggtypes(engine, false) ? NO_MEMORY : 0;
    uint32_t end = engine->end_partition;
    for (uint32_t at = engine->first_partition; status == 0 && at < end; at++)
        if (engine->starts[at] != engine->starts[at + 1])
            status = prepare(engine, at, now);
    if (status) {
        abandon(engine);
        return status;
    }
    (void)engine_take_aggtypes(engine, true);
    for (uint32_t at = engine->first_partition; at < end; at++)
        if (engine->starts[at] != engine->starts[at + 1])
            commit(engine, at);
    return 0;
}

/* Tell what became of the records of one message, those from `first` to `end`. */
static void count_records(struct engine *engine, uint32_t first, uint32_t end,
                          struct outcome *outcome)
{
    const struct batch *batch = &engine->batch;
    for (uint32_t at = first; at < end; at++) {
        uint8_t rejection = batch->records[at].rejection;
        engine->counters.rejected[rejection] += rejection != RECORD_GOOD;
        if (rejection == RECORD_GOOD) {
            outcome->applied++;
            continue;
        }
        if (outcome->rejected < OUTCOME_REJECTED) {
            outcome->rows[outcome->rejected].index = at - first;
            outcome->rows[outcome->rejected].rejection = rejection;
        }
        outcome->rejected++;
    }
    engine->counters.records += outcome->applied;
}

static void refuse(struct outcome *outcome, enum outcome_status status, const char *message)
{
    outcome->status = status;
    outcome->fault.message = message;
}

/* Apply the records of a batch that is the next of its source; what comes in the way is told. */
static int apply_next(struct engine *engine, struct source *source, struct moment now,
                      struct outcome *outcome)
{
    const struct batch *batch = &engine->batch;
    uint32_t id = (uint32_t)(source - engine->sources);
    bool again = batch->has_seq && source->numbered && source->epoch == batch->epoch &&
                 batch->seq <= source->ahead;
    hash_records(engine, 0, id, now.wall);
    if (again)
        pass_over(engine, id);
    int status = apply_records(engine, now);
    if (status == MUST_WAIT && engine_settle_one(engine, source))
        status = apply_records(engine, now); /* it was the last that others waited for */
    if (status == NO_MEMORY)
        refuse(outcome, OUTCOME_OVERLOADED, "the collector is out of memory");
    engine->held_back = engine->held_back || status == MUST_WAIT;
    if (status == MUST_WAIT)
        refuse(outcome, OUTCOME_OVERLOADED,
               "no period closes until the sources of the last run are back (SNAPSHOT.grace): "
               "send it again");
    return status;
}

/* The source has come to a number. */
static void move_on(struct engine *engine, struct source *source, struct outcome *outcome)
{
    const struct batch *batch = &engine->batch;
    bool is_new_epoch = !source->numbered || source->epoch != batch->epoch;
    bool was_behind = source->ahead > source->seq;
    if (is_new_epoch) {
        source->durable = source->told = outcome->durable = source->returned_seq = 0;
        source->has_target = false;
    }
    if (was_behind && (is_new_epoch || batch->seq >= source->ahead))
        engine_end_replay(engine, source);
    source->numbered = true;
    source->epoch = batch->epoch;
    source->seq = batch->seq;
}

static void apply_batch(struct engine *engine, struct moment now, struct outcome *outcome)
{
    const struct batch *batch = &engine->batch;
    if (batch->has_seq && batch->seq != 1 && !engine_has_source(engine)) {
        outcome->status = OUTCOME_RESYNC; /* and nobody has to make way for it yet */
        return;
    }
    struct source *source = engine_source(engine);
    if (source == NULL) {
        refuse(outcome, OUTCOME_OVERLOADED,
               engine->source_names.index.used >= engine->source_limit
                   ? "the collector knows as many sources as it may (LIMITS.sources)"
                   : "the collector is out of memory");
        return;
    }
    bool is_new = source->is_new;
    engine_return(engine, source);
    outcome->source = (uint32_t)(source - engine->sources);
    outcome->durable = source->durable;
    outcome->status = engine_judge(engine, source, &outcome->last);
    if (outcome->status == OUTCOME_APPLIED && apply_next(engine, source, now, outcome)) {
        if (is_new)
            engine_forget(engine, source);
        else if (outcome->status == OUTCOME_OVERLOADED)
            source->heard = now.steady; /* it is there, though nothing of it is taken */
        outcome->source = is_new ? NONE : outcome->source;
        return;
    }
    if (outcome->status == OUTCOME_STALE_EPOCH) {
        source->last_seen = now.wall; /* what keeps it alive is its newer run */
        refuse(outcome, OUTCOME_STALE_EPOCH,
               "a newer run of this source is known: its epoch is higher");
        return;
    }
    if (outcome->status == OUTCOME_APPLIED) {
        count_records(engine, 0, batch->record_count, outcome);
        if (batch->has_seq)
            move_on(engine, source, outcome);
    }
    engine_heard(engine, source, now, outcome);
    if (batch->has_seq && outcome->status != OUTCOME_RESYNC)
        source->told = outcome->durable;
}

static void count_message(struct engine *engine, size_t length, const struct outcome *outcome)
{
    engine->counters.outcomes[outcome->status]++;
    engine->counters.bytes += length;
}

static void apply_message(struct engine *engine, struct message message, struct moment now,
                          struct outcome *outcome)
{
    static const enum outcome_status refusals[] = {
        [BATCH_MALFORMED] = OUTCOME_MALFORMED,
        [BATCH_TOO_LARGE] = OUTCOME_TOO_LARGE,
        [BATCH_NO_MEMORY] = OUTCOME_OVERLOADED,
    };
    *outcome = (struct outcome){.source = NONE};
    struct batch *batch = &engine->batch;
    enum batch_status status = batch_read(batch, (const uint8_t *)message.bytes, message.length,
                                          engine->batch_bytes, &outcome->fault);
    outcome->answer = !batch->unanswered;
    outcome->has_seq = batch->has_seq;
    outcome->seq = batch->seq;
    if (status == BATCH_OK && !may_speak(message.speaker, batch))
        refuse(outcome, OUTCOME_UNAUTHORISED,
               "this key may not send, or not as that source (rights and sources, in its file on the "
               "collector)");
    else if (status == BATCH_OK)
        apply_batch(engine, now, outcome);
    else
        outcome->status = refusals[status];
    if (status == BATCH_NO_MEMORY)
        outcome->fault.message = "the collector is out of memory";
    count_message(engine, message.length, outcome);
    batch_clear(batch);
}

/* ---- short messages, several at once --------------------------------------------------------------- */

/* Read one more short message behind the others; false where it has to be applied alone: it wants
 * an answer, its source is new or was gone, it tells aggtypes, or something is wrong with it. */
static bool gather_one(struct engine *engine, struct message message, struct moment now)
{
    struct batch *batch = &engine->batch;
    struct batch_fault fault;
    uint32_t first = batch->record_count, first_attribute = batch->attribute_count;
    if (message.length > SHORT_MESSAGE ||
        batch_read_more(batch, (const uint8_t *)message.bytes, message.length, engine->batch_bytes,
                        &fault))
        return false;
    uint32_t source = names_find(&engine->source_names,
                                 names_hash(&engine->source_names, batch->source,
                                            batch->source_length),
                                 batch->source, batch->source_length);
    if (batch->has_seq || batch->aggtypes != NULL || source == NONE ||
        engine->sources[source].gone || !may_speak(message.speaker, batch)) {
        batch_rewind(batch, first, first_attribute);
        return false;
    }
    engine->gathered[engine->gathered_count].source = source;
    engine->gathered[engine->gathered_count].end = batch->record_count;
    engine->gathered_count++;
    hash_records(engine, first, source, now.wall);
    return true;
}

/* Apply as many of the first messages as can be applied as one batch; returns how many. Waiting
 * for memory is most of the work of a short message, and together they wait once. */
static size_t apply_together(struct engine *engine, const struct message *messages, size_t count,
                             struct moment now, struct outcome *outcomes)
{
    struct batch *batch = &engine->batch;
    batch->record_count = batch->attribute_count = 0;
    engine->gathered_count = 0;
    while (engine->gathered_count < count && engine->gathered_count < GATHERED &&
           gather_one(engine, messages[engine->gathered_count], now))
        ;
    batch->aggtypes = NULL;
    size_t gathered = engine->gathered_count;
    if (gathered > 0 && apply_records(engine, now))
        gathered = 0; /* no memory, or not now: each has to go its own way, and to be told so */
    for (size_t at = 0; at < gathered; at++) {
        struct source *source = &engine->sources[engine->gathered[at].source];
        outcomes[at] = (struct outcome){.source = engine->gathered[at].source};
        source->last_seen = now.wall;
        source->heard = now.steady;
        count_records(engine, at ? engine->gathered[at - 1].end : 0, engine->gathered[at].end,
                      &outcomes[at]);
        count_message(engine, messages[at].length, &outcomes[at]);
    }
    batch_clear(batch);
    return gathered;
}

void engine_apply(struct engine *engine, const struct message *messages, size_t count,
                  struct moment now, struct outcome *outcomes)
{
    for (size_t at = 0; at < count;) {
        pthread_mutex_lock(&engine->ingest);
        size_t gathered = 0;
        if (count - at > 1 && messages[at].length <= SHORT_MESSAGE)
            gathered = apply_together(engine, messages + at, count - at, now, outcomes + at);
        if (gathered == 0)
            apply_message(engine, messages[at], now, &outcomes[at]);
        at += gathered ? gathered : 1;
        pthread_mutex_unlock(&engine->ingest);
    }
}

/* Whether no period may close yet: sources are awaited, or all are back, but a batch that had to be
 * refused meanwhile has not had the time to come again. */
static bool is_waiting(struct engine *engine, const struct partition *partition, uint64_t steady)
{
    if (atomic_load_explicit(&engine->limits.waiting, memory_order_acquire))
        return true;
    uint64_t from = atomic_load_explicit(&engine->closes_from, memory_order_relaxed);
    if (from == TO_BE_SET) {
        from = steady + partition->lateness * 1000 + COMES_AGAIN_US;
        atomic_store(&engine->closes_from, from);
    }
    return steady < from;
}

uint64_t engine_advance(struct engine *engine, uint32_t number, struct moment now)
{
    struct partition *partition = &engine->partitions[number];
    uint64_t closed = 0, cursor = 0;
    bool waiting = is_waiting(engine, partition, now.steady);
    while (cursor != UINT64_MAX) {
        pthread_mutex_lock(&partition->lock);
        if (partition->frozen || waiting) {
            cursor = UINT64_MAX; /* the next turn will find what is due */
        } else {
            partition_clock(partition, now);
            closed += partition_advance(partition, &cursor);
        }
        if (cursor == UINT64_MAX)
            partition_recycle(partition);
        pthread_mutex_unlock(&partition->lock);
    }
    return closed;
}
