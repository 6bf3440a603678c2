#include "memory.h"

#include <stdlib.h>
#include <string.h>

static void *resize_by_realloc(void *context, void *block, size_t size)
{
    (void)context;
    return realloc(block, size);
}

void memory_init(struct memory *memory)
{
    memory->resize = resize_by_realloc;
    memory->context = NULL;
    atomic_init(&memory->used, 0);
}

static void *resize(struct memory *memory, void *block, size_t old, size_t size)
{
    void *grown = memory->resize(memory->context, block, size);
    if (grown != NULL)
        atomic_fetch_add_explicit(&memory->used, size - old, memory_order_relaxed);
    return grown;
}

void *memory_get(struct memory *memory, size_t size)
{
    void *block = resize(memory, NULL, 0, size);
    return block ? memset(block, 0, size) : NULL;
}

void memory_free(struct memory *memory, void *block, size_t size)
{
    if (block == NULL)
        return;
    free(block);
    atomic_fetch_sub_explicit(&memory->used, size, memory_order_relaxed);
}

int memory_reserve(struct memory *memory, void *array, size_t element, size_t *capacity,
                   size_t wanted)
{
    if (wanted <= *capacity)
        return 0;
    size_t room = *capacity ? *capacity : 16;
    while (room < wanted)
        room *= 2;
    void *block;
    memcpy(&block, array, sizeof block);
    block = resize(memory, block, *capacity * element, room * element);
    if (block == NULL)
        return -1;
    memcpy(array, &block, sizeof block);
    *capacity = room;
    return 0;
}
