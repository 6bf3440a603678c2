/* sources.c: those who report: how far each has come, whether it is still there, what it was told.
 * All of it is guarded by `ingest`. */
#include "engine.h"

#include <string.h>

/* ---- known, gone, forgotten ------------------------------------------------------------------------- */

void engine_let_go(struct engine *engine, uint32_t id)
{
    struct source *source = &engine->sources[id];
    source->gone = true;
    source->older = engine->newest_gone;
    source->newer = NONE;
    if (source->older == NONE)
        engine->oldest_gone = id;
    else
        engine->sources[source->older].newer = id;
    engine->newest_gone = id;
}

static void unlink_gone(struct engine *engine, struct source *source)
{
    source->gone = false;
    if (source->older == NONE)
        engine->oldest_gone = source->newer;
    else
        engine->sources[source->older].newer = source->newer;
    if (source->newer == NONE)
        engine->newest_gone = source->older;
    else
        engine->sources[source->newer].older = source->older;
}

void engine_forget(struct engine *engine, struct source *source)
{
    if (source->gone)
        unlink_gone(engine, source);
    if (source->ahead > source->seq)
        engine_end_replay(engine, source);
    (void)engine_settle_one(engine, source);
    names_drop(&engine->source_names, (uint32_t)(source - engine->sources));
    if (!engine->copying) /* else a snapshot may know it by its id */
        names_recycle(&engine->source_names, &engine->memory);
}

static int reserve_source(struct engine *engine)
{
    size_t wanted = (size_t)engine->source_names.count + 1, held = engine->holding_capacity;
    if (memory_reserve(&engine->memory, &engine->sources, sizeof *engine->sources,
                       &engine->source_capacity, wanted) ||
        memory_reserve(&engine->memory, &engine->limits.holdings, sizeof *engine->limits.holdings,
                       &engine->holding_capacity, wanted))
        return -1;
    if (engine->holding_capacity > held)
        memset(engine->limits.holdings + held, 0,
               (engine->holding_capacity - held) * sizeof *engine->limits.holdings);
    return 0;
}

/* The id of the batch's source, and the hash of its name; NONE. */
static uint32_t find_source(const struct engine *engine, uint32_t *hash)
{
    const struct names *names = &engine->source_names;
    const struct batch *batch = &engine->batch;
    *hash = names_hash(names, batch->source, batch->source_length);
    return names_find(names, *hash, batch->source, batch->source_length);
}

bool engine_has_source(const struct engine *engine)
{
    uint32_t hash;
    return find_source(engine, &hash) != NONE;
}

struct source *engine_source(struct engine *engine)
{
    struct names *names = &engine->source_names;
    const struct batch *batch = &engine->batch;
    uint32_t hash, id = find_source(engine, &hash);
    if (id != NONE)
        return &engine->sources[id];
    /* While a snapshot is copied out none is forgotten: parts of it may speak of each. */
    if (names->index.used >= engine->source_limit && engine->oldest_gone != NONE &&
        !engine->copying && !engine->limits.holdings[engine->oldest_gone].leaving)
        engine_forget(engine, &engine->sources[engine->oldest_gone]);
    if (names->index.used >= engine->source_limit || reserve_source(engine))
        return NULL;
    id = names_add(names, &engine->memory, hash, batch->source, batch->source_length);
    if (id == NONE)
        return NULL;
    names_at(names, id)->refs = 1;
    engine->sources[id] = (struct source){.older = NONE, .newer = NONE, .is_new = true};
    return &engine->sources[id];
}

/* ---- after a restart -------------------------------------------------------------------------------- */

bool engine_settle_one(struct engine *engine, struct source *source)
{
    if (source->awaited == SOURCE_SETTLED)
        return false;
    source->awaited = SOURCE_SETTLED;
    engine->awaited--;
    if (engine->awaited == 0 && engine->held_back)
        atomic_store(&engine->closes_from, TO_BE_SET);
    atomic_store_explicit(&engine->limits.waiting, engine->awaited > 0, memory_order_release);
    return engine->awaited == 0;
}

/* Where an awaited source says, or shows, how much it kept, that is what is waited for. */
static void await(struct engine *engine, struct source *source, uint64_t steady,
                  const struct outcome *outcome)
{
    const struct batch *batch = &engine->batch;
    if (source->awaited == SOURCE_ABSENT) {
        source->awaited = SOURCE_BACK;
        source->returned = steady;
    }
    bool shows = batch->has_seq && outcome->status == OUTCOME_RESYNC;
    if (!source->has_target && batch->has_seq && (batch->has_newest || shows)) {
        source->target = batch->has_newest ? batch->newest : batch->seq - 1;
        source->has_target = true;
    }
    /* Of a newer run, whose first batch has not come yet, there is nothing. */
    bool is_newer = batch->has_seq && batch->epoch != source->epoch;
    if (source->has_target && !is_newer && source->seq >= source->target)
        (void)engine_settle_one(engine, source);
}

uint32_t engine_settle(struct engine *engine, uint64_t steady, uint64_t quiet)
{
    pthread_mutex_lock(&engine->ingest);
    for (uint32_t id = 0; engine->awaited > 0 && id < engine->source_names.count; id++) {
        struct source *source = &engine->sources[id];
        if (engine_knows(engine, id) && source->awaited == SOURCE_BACK && !source->has_target &&
            steady >= source->returned + quiet)
            (void)engine_settle_one(engine, source);
    }
    uint32_t awaited = engine->awaited;
    pthread_mutex_unlock(&engine->ingest);
    return awaited;
}

uint32_t engine_settle_all(struct engine *engine)
{
    pthread_mutex_lock(&engine->ingest);
    uint32_t awaited = engine->awaited;
    for (uint32_t id = 0; engine->awaited > 0 && id < engine->source_names.count; id++)
        if (engine_knows(engine, id))
            (void)engine_settle_one(engine, &engine->sources[id]);
    pthread_mutex_unlock(&engine->ingest);
    return awaited;
}

void engine_end_replay(struct engine *engine, struct source *source)
{
    source->ahead = 0;
    if (--engine->replay.behind == 0)
        engine_free_replay(engine);
}

void engine_free_replay(struct engine *engine)
{
    struct replay *replay = &engine->replay;
    size_t size = (size_t)replay->partitions * replay->sources * sizeof *replay->seqs;
    memory_free(&engine->memory, replay->seqs, size);
    memory_free(&engine->memory, replay->epochs, size);
    replay->seqs = replay->epochs = NULL;
}

/* A source that holds less than a partition has of it lost the rest: what comes under those numbers
 * is new, and no partition may pass over it. */
static void believe_newest(struct engine *engine, struct source *source)
{
    const struct batch *batch = &engine->batch;
    struct replay *replay = &engine->replay;
    bool is_less = batch->has_seq && batch->has_newest && batch->epoch == source->epoch &&
                   source->ahead > source->seq && batch->newest < source->ahead;
    if (!is_less)
        return;
    size_t id = (size_t)(source - engine->sources);
    for (uint32_t partition = 0; partition < replay->partitions; partition++) {
        uint64_t *seq = &replay->seqs[(size_t)partition * replay->sources + id];
        *seq = *seq < batch->newest ? *seq : batch->newest;
    }
    if (batch->newest > source->seq)
        source->ahead = batch->newest;
    else
        engine_end_replay(engine, source);
}

enum outcome_status engine_judge(struct engine *engine, struct source *source, uint64_t *last)
{
    const struct batch *batch = &engine->batch;
    believe_newest(engine, source);
    if (!batch->has_seq)
        return OUTCOME_APPLIED;
    /* A run that is gone may have had a clock that was ahead: it locks nobody out. */
    if (source->numbered && batch->epoch < source->epoch && !source->gone)
        return OUTCOME_STALE_EPOCH;
    bool same_epoch = source->numbered && batch->epoch == source->epoch;
    *last = same_epoch ? source->seq : 0;
    if (batch->seq <= *last)
        return OUTCOME_DUPLICATE;
    return batch->seq == *last + 1 ? OUTCOME_APPLIED : OUTCOME_RESYNC;
}

/* ---- heard, or not ---------------------------------------------------------------------------------- */

/* Remove what sources that are leaving have in one partition. */
static void remove_leaving(struct engine *engine, uint32_t number)
{
    struct partition *partition = &engine->partitions[number];
    uint32_t cursor = 0;
    bool done = false;
    while (!done) {
        pthread_mutex_lock(&partition->lock);
        done = partition_remove_leaving(partition, &cursor);
        if (done)
            partition_recycle(partition);
        pthread_mutex_unlock(&partition->lock);
    }
}

static void have_left(struct engine *engine)
{
    for (uint32_t id = engine->newest_gone; id != NONE; id = engine->sources[id].older)
        engine->limits.holdings[id].leaving = false;
}

void engine_heard(struct engine *engine, struct source *source, struct moment now,
                  struct outcome *outcome)
{
    source->is_new = false;
    source->last_seen = now.wall;
    source->heard = now.steady;
    if (source->gone)
        unlink_gone(engine, source);
    const struct batch *batch = &engine->batch;
    if (outcome->status == OUTCOME_APPLIED && source->bereft && batch->has_seq) {
        source->bereft = false;
        source->returned_seq = batch->seq;
    }
    if (outcome->status != OUTCOME_RESYNC)
        outcome->expired = source->returned_seq; /* each time: an answer may be lost */
    if (source->awaited != SOURCE_SETTLED)
        await(engine, source, now.steady, outcome);
}

void engine_return(struct engine *engine, const struct source *source)
{
    if (!engine->limits.holdings[source - engine->sources].leaving)
        return;
    for (uint32_t number = 0; number < engine->partition_count; number++)
        remove_leaving(engine, number);
    have_left(engine);
}

/* Mark the sources that go; returns whether one of them has records. */
static bool mark_silent(struct engine *engine, uint64_t steady, uint64_t timeout,
                        struct msgpack_writer *writer)
{
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    bool leaving = false;
    for (uint32_t id = 0; id < engine->source_names.count; id++) {
        const struct name *name = names_at(&engine->source_names, id);
        struct source *source = &engine->sources[id];
        if (!engine_knows(engine, id) || source->gone ||
            steady < source->heard || steady - source->heard < timeout)
            continue;
        struct holding *holding = &engine->limits.holdings[id];
        (void)engine_settle_one(engine, source);
        engine_let_go(engine, id);
        source->bereft = source->bereft || holding->records > 0;
        holding->leaving = holding->records > 0;
        leaving = leaving || holding->leaving;
        msgpack_write_str(writer, name->text, name->length);
        written++;
    }
    msgpack_close_array(writer, opened, written);
    return leaving;
}

void engine_expire(struct engine *engine, uint64_t steady, uint64_t timeout,
                   struct msgpack_writer *writer)
{
    pthread_mutex_lock(&engine->ingest);
    /* While a snapshot is copied out none goes: one that came back at once would leave what it had in
     * partitions that are saved already. */
    bool leaving = mark_silent(engine, steady, engine->copying ? UINT64_MAX : timeout, writer);
    pthread_mutex_unlock(&engine->ingest);
    for (uint32_t number = 0; leaving && number < engine->partition_count; number++) {
        pthread_mutex_lock(&engine->ingest);
        remove_leaving(engine, number);
        if (number + 1 == engine->partition_count)
            have_left(engine);
        pthread_mutex_unlock(&engine->ingest);
    }
}

/* ---- what is told ----------------------------------------------------------------------------------- */

void engine_untold(struct engine *engine, uint64_t steady, uint64_t quiet,
                   struct msgpack_writer *writer)
{
    pthread_mutex_lock(&engine->ingest);
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    bool left = false;
    for (uint32_t id = 0; engine->untold && id < engine->source_names.count; id++) {
        struct source *source = &engine->sources[id];
        if (!engine_knows(engine, id) || !source->numbered ||
            source->told >= source->durable)
            continue;
        if (steady < source->heard + quiet) {
            left = true; /* it is about to hear of it with its next answer, or later from here */
            continue;
        }
        source->told = source->durable;
        msgpack_write_array(writer, 3);
        msgpack_write_uint(writer, id);
        msgpack_write_uint(writer, source->seq);
        msgpack_write_uint(writer, source->durable);
        written++;
    }
    engine->untold = left;
    msgpack_close_array(writer, opened, written);
    pthread_mutex_unlock(&engine->ingest);
}
