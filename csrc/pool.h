/* pool.h: cells of one size, known by a 32-bit id that never moves.
 *
 *     slabs   [0] | header | cell 0 | cell 1 | ... | cell 255 |
 *             [1] | header | cell 256 | ...
 *
 * Slabs are allocated one at a time and never moved, so growing copies nothing; walking them walks
 * contiguous memory. The header is the owner's, for what it keeps beside the cells (the series
 * keep there, packed, when each is next due). The first 4 bytes of a free cell link the free ones.
 */
#ifndef COLLECTORD_POOL_H
#define COLLECTORD_POOL_H

#include "index.h"
#include "memory.h"

enum { POOL_SLAB = 256 };

struct pool {
    uint8_t **slabs;
    size_t slab_capacity;
    uint32_t slab_count;
    uint32_t header; /* bytes before a slab's first cell */
    uint32_t cell;   /* bytes of a cell, a multiple of 8 */
    uint32_t free;   /* the first free cell, or NONE */
    uint32_t live;   /* cells taken */
};

void pool_init(struct pool *pool, uint32_t cell, uint32_t header);

/* A cell of zeroed bytes: its id, or NONE (no memory). A new slab's header is zeroed. */
uint32_t pool_take(struct pool *pool, struct memory *memory);

/* Room for `cells` in all, so that taking them can't fail; 0 or -1 (no memory). */
int pool_reserve(struct pool *pool, struct memory *memory, uint32_t cells);
void pool_give(struct pool *pool, uint32_t id);
void pool_free(struct pool *pool, struct memory *memory);

static inline void *pool_header(const struct pool *pool, uint32_t id)
{
    return pool->slabs[id / POOL_SLAB];
}

static inline void *pool_at(const struct pool *pool, uint32_t id)
{
    return pool->slabs[id / POOL_SLAB] + pool->header + (size_t)(id % POOL_SLAB) * pool->cell;
}

/* How many ids there are, free ones included. */
static inline uint32_t pool_ids(const struct pool *pool)
{
    return pool->slab_count * POOL_SLAB;
}

#endif
