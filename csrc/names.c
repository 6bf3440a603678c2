#include "names.h"

#include "hash.h"

#include <string.h>

void names_init(struct names *names, uint64_t seed)
{
    *names = (struct names){.retired = NONE, .seed = seed};
}

uint32_t names_hash(const struct names *names, const void *text, size_t length)
{
    return hash_name(text, length, names->seed);
}

uint32_t names_find(const struct names *names, uint32_t hash, const void *text, size_t length)
{
    uint32_t at = hash, id;
    while ((id = index_next(&names->index, hash, &at)) != NONE) {
        const struct name *name = names->entries[id];
        if (name->length == length && memcmp(name->text, text, length) == 0)
            return id;
    }
    return NONE;
}

uint32_t names_add(struct names *names, struct memory *memory, uint32_t hash, const void *text,
                   size_t length)
{
    size_t wanted = (size_t)names->count + 1;
    if (memory_reserve(memory, &names->entries, sizeof *names->entries, &names->capacity,
                       wanted) ||
        memory_reserve(memory, &names->vacant, sizeof *names->vacant,
                       &names->vacant_capacity, wanted) ||
        index_reserve(&names->index, memory))
        return NONE;
    struct name *name = memory_get(memory, sizeof *name + length);
    if (name == NULL)
        return NONE;
    uint32_t id = names->vacant_count ? names->vacant[--names->vacant_count] : names->count++;
    name->hash = hash;
    name->length = (uint32_t)length;
    memcpy(name->text, text, length);
    names->entries[id] = name;
    index_put(&names->index, hash, id);
    return id;
}

uint32_t names_intern(struct names *names, struct memory *memory, const void *text, size_t length)
{
    uint32_t hash = names_hash(names, text, length);
    uint32_t id = names_find(names, hash, text, length);
    return id != NONE ? id : names_add(names, memory, hash, text, length);
}

void names_drop(struct names *names, uint32_t id)
{
    struct name *name = names->entries[id];
    if (name->refs > 0 && --name->refs > 0)
        return;
    index_remove(&names->index, name->hash, id);
    name->next = names->retired;
    names->retired = id;
}

static void release(struct names *names, struct memory *memory, uint32_t id)
{
    struct name *name = names->entries[id];
    memory_free(memory, name, sizeof *name + name->length);
    names->entries[id] = NULL;
}

void names_recycle(struct names *names, struct memory *memory)
{
    while (names->retired != NONE) {
        uint32_t id = names->retired;
        names->retired = names->entries[id]->next;
        release(names, memory, id);
        names->vacant[names->vacant_count++] = id;
    }
}

void names_free(struct names *names, struct memory *memory)
{
    for (uint32_t id = 0; id < names->count; id++)
        if (names->entries[id] != NULL)
            release(names, memory, id);
    memory_free(memory, names->entries, names->capacity * sizeof *names->entries);
    memory_free(memory, names->vacant, names->vacant_capacity * sizeof *names->vacant);
    index_free(&names->index, memory);
    names_init(names, names->seed);
}
