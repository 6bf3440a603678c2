/* restore.c: an engine out of a snapshot: the head, and how far each source had come. The partitions
 * have files of their own. */
#include "snapshot.h"

/* ---- the head ----------------------------------------------------------------------------------------- */

/* The engine's id of a source that the head told, by its id then; NONE. Until the end each source
 * keeps that one in saving_epoch: they came in its order. */
static uint32_t find_source(const struct engine *engine, uint64_t saved)
{
    uint32_t first = 0, end = engine->replay.sources;
    while (first < end) {
        uint32_t middle = first + (end - first) / 2;
        if (engine->sources[middle].saving_epoch == saved)
            return middle;
        if (engine->sources[middle].saving_epoch < saved)
            first = middle + 1;
        else
            end = middle;
    }
    return NONE;
}

/* A source of a new engine; its id is the number of those before it. */
static struct source *add_source(struct engine *engine, struct restoring *restoring,
                                 const struct text *name)
{
    uint32_t known = engine->source_names.count;
    if (name->length == 0 || name->length > SOURCE_BYTES ||
        !msgpack_is_utf8((const uint8_t *)name->bytes, name->length)) {
        restore_broken(restoring, "a source has no good name");
        return NULL;
    }
    engine->batch.source = (const uint8_t *)name->bytes;
    engine->batch.source_length = (uint32_t)name->length;
    struct source *source = engine_source(engine);
    if (source == NULL)
        restore_no_memory(restoring);
    else if (engine->source_names.count == known)
        restore_broken(restoring, "a source is there twice");
    return engine->source_names.count == known ? NULL : source;
}

static bool restore_source(struct engine *engine, struct restoring *restoring, struct moment now)
{
    uint64_t saved, last_seen, flags, returned_seq, epoch, seq;
    struct text name;
    if (!restore_array_of(restoring, SOURCE_FIELDS) ||
        !restore_natural(restoring, NONE - 1, &saved) || !restore_text(restoring, &name) ||
        !restore_natural(restoring, UINT64_MAX, &last_seen) ||
        !restore_natural(restoring, SOURCE_NUMBERED | SOURCE_BEREFT, &flags) ||
        !restore_natural(restoring, UINT64_MAX, &returned_seq) ||
        !restore_natural(restoring, UINT64_MAX, &epoch) ||
        !restore_natural(restoring, UINT64_MAX, &seq))
        return false;
    uint32_t id = engine->source_names.count;
    if (id > 0 && engine->sources[id - 1].saving_epoch >= saved)
        return restore_broken(restoring, "sources are out of order");
    struct source *source = add_source(engine, restoring, &name);
    if (source == NULL)
        return false;
    source->is_new = false;
    source->last_seen = last_seen;
    source->heard = now.steady; /* that nobody was there to hear it is not its fault */
    source->numbered = flags & SOURCE_NUMBERED;
    source->bereft = flags & SOURCE_BEREFT;
    source->returned_seq = returned_seq;
    source->epoch = epoch;
    source->ahead = seq; /* no partition can have come further */
    source->saving_epoch = saved;
    return true;
}

static bool restore_sources(struct engine *engine, struct restoring *restoring, struct moment now)
{
    uint32_t count;
    uint64_t limit = engine->source_limit;
    bool good = restore_array(restoring, &count);
    engine->source_limit = UINT64_MAX; /* what was known once is not forgotten by a restart */
    for (; good && count > 0; count--)
        good = restore_source(engine, restoring, now);
    engine->source_limit = limit;
    engine->batch.source = NULL;
    engine->batch.source_length = 0;
    engine->replay.sources = engine->source_names.count;
    return good;
}

/* Those that are gone, the longest gone first. */
static bool restore_gone(struct engine *engine, struct restoring *restoring)
{
    uint32_t count;
    bool good = restore_array(restoring, &count);
    for (; good && count > 0; count--) {
        uint64_t saved;
        if (!restore_natural(restoring, NONE - 1, &saved))
            return false;
        uint32_t id = find_source(engine, saved);
        if (id == NONE || engine->sources[id].gone)
            return restore_broken(restoring, "who is gone is no source, or gone twice");
        engine_let_go(engine, id);
    }
    return good;
}

/* Whether it is <struct>-<attribute>. */
static bool is_column(const struct text *text)
{
    const uint8_t *bytes = (const uint8_t *)text->bytes;
    const uint8_t *dash = text->length ? memchr(bytes, '-', text->length) : NULL;
    if (dash == NULL)
        return false;
    size_t length = (size_t)(dash - bytes);
    return batch_is_name(bytes, length) && batch_is_name(dash + 1, text->length - length - 1);
}

static bool restore_aggtypes(struct engine *engine, struct restoring *restoring)
{
    uint32_t count;
    if (!restore_array(restoring, &count))
        return false;
    if (count % 2 != 0)
        return restore_broken(restoring, "an aggtype is missing");
    for (; count > 0; count -= 2) {
        struct text column, aggtype;
        if (!restore_text(restoring, &column) || !restore_text(restoring, &aggtype))
            return false;
        if (!is_column(&column) ||
            !batch_is_aggtype((const uint8_t *)aggtype.bytes, aggtype.length))
            return restore_broken(restoring, "an aggtype is none, or of no attribute");
        uint32_t id =
            names_intern(&engine->aggtypes, &engine->memory, column.bytes, column.length);
        uint32_t text = id == NONE ? NONE
                                   : names_intern(&engine->aggtype_texts, &engine->memory,
                                                  aggtype.bytes, aggtype.length);
        if (text == NONE)
            return restore_no_memory(restoring);
        names_at(&engine->aggtypes, id)->tag = (int32_t)text;
    }
    atomic_fetch_add(&engine->aggtypes_version, 1);
    return true;
}

static bool is_new_engine(const struct engine *engine)
{
    return engine->source_names.count == 0 && engine->aggtypes.count == 0 &&
           engine->replay.saved == 0 && engine->limits.held_keys == 0;
}

static bool restore_head(struct engine *engine, struct restoring *restoring, struct moment now)
{
    uint64_t format, partitions, wall;
    if (!is_new_engine(engine))
        return restore_broken(restoring, "the engine is in use already");
    if (!restore_array_of(restoring, HEAD_FIELDS) ||
        !restore_natural(restoring, UINT64_MAX, &format))
        return false;
    if (format != SNAPSHOT_FORMAT)
        return restore_broken(restoring, "it is of another version, or another kind of machine");
    if (!restore_natural(restoring, UINT16_MAX, &partitions) ||
        !restore_natural(restoring, UINT64_MAX, &wall))
        return false;
    if (partitions == 0)
        return restore_broken(restoring, "there is no partition");
    if (!restore_sources(engine, restoring, now) || !restore_gone(engine, restoring) ||
        !restore_aggtypes(engine, restoring))
        return false;
    engine->replay.saved = (uint32_t)partitions;
    return restore_close(restoring);
}

enum restore_status engine_restore_head(struct engine *engine, const uint8_t *bytes, size_t length,
                                        struct moment now, struct batch_fault *fault)
{
    struct restoring restoring;
    restore_open(&restoring, bytes, length, fault);
    pthread_mutex_lock(&engine->ingest);
    (void)restore_head(engine, &restoring, now);
    pthread_mutex_unlock(&engine->ingest);
    return restoring.status;
}

/* ---- how far each partition had come ------------------------------------------------------------------- */

/* Arrays of so many rows, with what they hold already; 0 or -1 (no memory). */
static int resize_replay(struct engine *engine, uint32_t rows)
{
    struct replay *replay = &engine->replay, grown = *replay;
    size_t row = (size_t)replay->sources * sizeof *replay->seqs;
    grown.partitions = rows;
    grown.seqs = memory_get(&engine->memory, rows * row);
    grown.epochs = grown.seqs ? memory_get(&engine->memory, rows * row) : NULL;
    if (grown.epochs == NULL) {
        memory_free(&engine->memory, grown.seqs, rows * row);
        return -1;
    }
    if (replay->restored > 0) {
        memcpy(grown.seqs, replay->seqs, replay->restored * row);
        memcpy(grown.epochs, replay->epochs, replay->restored * row);
    }
    engine_free_replay(engine);
    *replay = grown;
    return 0;
}

static bool restore_position(struct engine *engine, struct restoring *restoring, uint64_t *after)
{
    uint64_t saved, epoch, seq;
    if (!restore_natural(restoring, NONE - 1, &saved) ||
        !restore_natural(restoring, UINT64_MAX, &epoch) ||
        !restore_natural(restoring, UINT64_MAX, &seq))
        return false;
    if (saved < *after)
        return restore_broken(restoring, "positions are out of order");
    *after = saved + 1;
    uint32_t id = find_source(engine, saved);
    if (id == NONE)
        return true; /* it was forgotten meanwhile */
    const struct source *source = &engine->sources[id];
    if (!source->numbered || (epoch == source->epoch && seq > source->ahead))
        return restore_broken(restoring, "a partition is ahead of the head");
    size_t at = (size_t)engine->replay.restored * engine->replay.sources + id;
    engine->replay.seqs[at] = seq;
    engine->replay.epochs[at] = epoch;
    return true;
}

bool restore_positions(struct engine *engine, struct restoring *restoring)
{
    struct replay *replay = &engine->replay;
    uint32_t count, rows = replay->partitions;
    uint64_t after = 0;
    if (!restore_array(restoring, &count))
        return false;
    if (count % 3 != 0)
        return restore_broken(restoring, "a position is missing");
    if (replay->sources > 0 && replay->restored == rows &&
        resize_replay(engine, rows ? rows * 2 : 16))
        return restore_no_memory(restoring);
    bool good = true;
    for (; good && count > 0; count -= 3)
        good = restore_position(engine, restoring, &after);
    return good;
}

/* ---- the end -------------------------------------------------------------------------------------------- */

/* A source goes on from where the partition stands that had come the least far; what others had
 * beyond they pass over when it comes again. */
static void place(struct engine *engine, struct source *source)
{
    const struct replay *replay = &engine->replay;
    size_t id = (size_t)(source - engine->sources);
    uint64_t least = UINT64_MAX, greatest = 0;
    for (uint32_t partition = 0; partition < replay->restored; partition++) {
        size_t at = (size_t)partition * replay->sources + id;
        if (replay->epochs[at] != source->epoch)
            replay->seqs[at] = 0; /* it has nothing of this run of the source */
        least = replay->seqs[at] < least ? replay->seqs[at] : least;
        greatest = replay->seqs[at] > greatest ? replay->seqs[at] : greatest;
    }
    source->seq = source->durable = least;
    source->ahead = greatest > least ? greatest : 0;
}

static void begin_again(struct engine *engine)
{
    for (uint32_t id = 0; id < engine->replay.sources; id++) {
        struct source *source = &engine->sources[id];
        source->saving_epoch = 0;
        if (!source->numbered) {
            source->epoch = source->ahead = 0;
            continue;
        }
        place(engine, source);
        engine->replay.behind += source->ahead > source->seq;
        engine->untold = engine->untold || source->durable > 0;
        if (source->gone)
            continue;
        source->awaited = SOURCE_ABSENT;
        engine->awaited++;
    }
    atomic_store_explicit(&engine->limits.waiting, engine->awaited > 0, memory_order_relaxed);
}

static bool restore_end(struct engine *engine, struct restoring *restoring)
{
    struct replay *replay = &engine->replay;
    if (replay->saved == 0 || replay->restored != replay->saved)
        return restore_broken(restoring, "a partition is missing");
    begin_again(engine);
    if (replay->behind > 0 && resize_replay(engine, replay->restored))
        return restore_no_memory(restoring);
    if (replay->behind == 0)
        engine_free_replay(engine);
    memory_free(&engine->memory, replay->epochs,
                (size_t)replay->partitions * replay->sources * sizeof *replay->epochs);
    replay->epochs = NULL;
    replay->partitions = replay->restored;
    return true;
}

enum restore_status engine_restore_end(struct engine *engine, struct batch_fault *fault)
{
    struct restoring restoring;
    restore_open(&restoring, NULL, 0, fault);
    pthread_mutex_lock(&engine->ingest);
    (void)restore_end(engine, &restoring);
    pthread_mutex_unlock(&engine->ingest);
    return restoring.status;
}
