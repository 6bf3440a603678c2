#include "pool.h"

#include <string.h>

static size_t slab_size(const struct pool *pool)
{
    return pool->header + (size_t)POOL_SLAB * pool->cell;
}

void pool_init(struct pool *pool, uint32_t cell, uint32_t header)
{
    *pool = (struct pool){.cell = cell, .header = header, .free = NONE};
}

static int add_slab(struct pool *pool, struct memory *memory)
{
    if (pool->slab_count >= UINT32_MAX / POOL_SLAB)
        return -1;
    if (memory_reserve(memory, &pool->slabs, sizeof *pool->slabs, &pool->slab_capacity,
                       (size_t)pool->slab_count + 1))
        return -1;
    uint8_t *slab = memory_get(memory, slab_size(pool));
    if (slab == NULL)
        return -1;
    pool->slabs[pool->slab_count++] = slab;
    for (uint32_t left = POOL_SLAB; left-- > 0;) {
        uint32_t id = (pool->slab_count - 1) * POOL_SLAB + left;
        memcpy(pool_at(pool, id), &pool->free, sizeof pool->free);
        pool->free = id;
    }
    return 0;
}

uint32_t pool_take(struct pool *pool, struct memory *memory)
{
    if (pool->free == NONE && add_slab(pool, memory))
        return NONE;
    uint32_t id = pool->free;
    void *cell = pool_at(pool, id);
    memcpy(&pool->free, cell, sizeof pool->free);
    memset(cell, 0, pool->cell);
    pool->live++;
    return id;
}

int pool_reserve(struct pool *pool, struct memory *memory, uint32_t cells)
{
    while (pool_ids(pool) < cells)
        if (add_slab(pool, memory))
            return -1;
    return 0;
}

void pool_give(struct pool *pool, uint32_t id)
{
    memcpy(pool_at(pool, id), &pool->free, sizeof pool->free);
    pool->free = id;
    pool->live--;
}

void pool_free(struct pool *pool, struct memory *memory)
{
    for (uint32_t slab = 0; slab < pool->slab_count; slab++)
        memory_free(memory, pool->slabs[slab], slab_size(pool));
    memory_free(memory, pool->slabs, pool->slab_capacity * sizeof *pool->slabs);
    pool_init(pool, pool->cell, pool->header);
}
