/* memory.h: every byte the core holds is asked for here, and counted.
 *
 * One struct memory stands behind an engine and all of its partitions. Blocks are handed back with
 * their size, so that nothing is stored beside them. `resize` may be replaced before the first
 * allocation by one that calls realloc or fails: the tests make the nth one fail, for every n.
 */
#ifndef COLLECTORD_MEMORY_H
#define COLLECTORD_MEMORY_H

#include <stdatomic.h>
#include <stddef.h>

struct memory {
    void *(*resize)(void *context, void *block, size_t size); /* as realloc */
    void *context;
    atomic_size_t used; /* bytes asked for and not yet given back */
};

void memory_init(struct memory *memory);

/* A block of `size` zeroed bytes, or NULL. */
void *memory_get(struct memory *memory, size_t size);

void memory_free(struct memory *memory, void *block, size_t size);

/* Make room in an array for `wanted` elements, doubling; 0 or -1 (no memory). `array` is where the
 * pointer to the array is kept, of whatever type; `*capacity` counts elements. What is added is
 * not zeroed. */
int memory_reserve(struct memory *memory, void *array, size_t element, size_t *capacity,
                   size_t wanted);

#endif
