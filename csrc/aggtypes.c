/* aggtypes.c: how sources said that values of an attribute are merged. The last one to tell wins. */
#include "engine.h"

#include <string.h>

/* Make room for one aggtype, or set it when `commits`; the text of the batch was checked. */
static int take_aggtype(struct engine *engine, const char *spelling, size_t length,
                        const uint8_t *text, uint32_t text_length, bool commits)
{
    uint32_t hash = names_hash(&engine->aggtypes, spelling, length);
    uint32_t id = names_find(&engine->aggtypes, hash, spelling, length);
    if (id == NONE && (commits || engine->aggtypes.count >= engine->aggtype_limit)) {
        engine->counters.aggtypes_dropped += commits;
        return 0;
    }
    if (id == NONE) {
        id = names_add(&engine->aggtypes, &engine->memory, hash, spelling, length);
        if (id == NONE)
            return -1;
        names_at(&engine->aggtypes, id)->tag = -1;
    }
    if (engine->aggtype_texts.count >= engine->aggtype_limit &&
        names_find(&engine->aggtype_texts,
                   names_hash(&engine->aggtype_texts, text, text_length), text,
                   text_length) == NONE) {
        engine->counters.aggtypes_dropped += commits;
        return 0;
    }
    uint32_t value = names_intern(&engine->aggtype_texts, &engine->memory, text, text_length);
    if (value == NONE)
        return -1;
    struct name *name = names_at(&engine->aggtypes, id);
    if (commits && name->tag != (int32_t)value) {
        name->tag = (int32_t)value;
        atomic_fetch_add(&engine->aggtypes_version, 1);
    }
    return 0;
}

int engine_take_aggtypes(struct engine *engine, bool commits)
{
    const struct batch *batch = &engine->batch;
    if (batch->aggtypes == NULL)
        return 0;
    struct msgpack_reader reader = {batch->aggtypes, batch->aggtypes + batch->aggtypes_length};
    struct msgpack_head structs, attributes;
    char spelling[METRIC_NAME];
    (void)msgpack_read(&reader, &structs);
    for (; structs.length > 0; structs.length--) {
        const uint8_t *name = NULL, *attribute = NULL, *text = NULL;
        uint32_t name_length = 0, attribute_length = 0, text_length = 0;
        (void)msgpack_read_str(&reader, &name, &name_length);
        memcpy(spelling, name, name_length);
        spelling[name_length] = '-';
        (void)msgpack_read(&reader, &attributes);
        for (; attributes.length > 0; attributes.length--) {
            (void)msgpack_read_str(&reader, &attribute, &attribute_length);
            (void)msgpack_read_str(&reader, &text, &text_length);
            memcpy(spelling + name_length + 1, attribute, attribute_length);
            if (take_aggtype(engine, spelling, (size_t)name_length + 1 + attribute_length, text,
                             text_length, commits))
                return -1;
        }
    }
    return 0;
}

void engine_aggtypes(struct engine *engine, struct msgpack_writer *writer)
{
    pthread_mutex_lock(&engine->ingest);
    size_t opened = msgpack_open_array(writer);
    uint32_t written = 0;
    for (uint32_t id = 0; id < engine->aggtypes.count; id++) {
        const struct name *name = names_at(&engine->aggtypes, id);
        if (name->tag < 0)
            continue;
        const struct name *text = names_at(&engine->aggtype_texts, (uint32_t)name->tag);
        msgpack_write_array(writer, 2);
        msgpack_write_str(writer, name->text, name->length);
        msgpack_write_str(writer, text->text, text->length);
        written++;
    }
    msgpack_close_array(writer, opened, written);
    pthread_mutex_unlock(&engine->ingest);
}
