/* index.h: a hash table of numbers, the one index behind keys, names and records.
 *
 *     slots   | hash id | hash id |  --     | hash id | ...        open addressing, linear probing
 *
 * It maps a 32-bit hash to the ids of whatever lives elsewhere; the caller compares. Growing moves
 * 8 bytes a slot and touches nothing else; removal shifts back, so there are no tombstones. Cost:
 * 8 bytes a slot at a load of 3/8 to 3/4.
 */
#ifndef COLLECTORD_INDEX_H
#define COLLECTORD_INDEX_H

#include "memory.h"

#include <stdint.h>

#define NONE UINT32_MAX /* no id */

struct index_slot {
    uint32_t hash;
    uint32_t id; /* NONE: empty */
};

struct index {
    struct index_slot *slots;
    uint32_t mask; /* slots - 1; meaningless while slots is NULL */
    uint32_t used;
};

/* Room for one more; 0 or -1 (no memory). index_put may follow without failing. */
int index_reserve(struct index *index, struct memory *memory);
void index_put(struct index *index, uint32_t hash, uint32_t id);
void index_remove(struct index *index, uint32_t hash, uint32_t id);
void index_free(struct index *index, struct memory *memory);

/* The next id with this hash, from slot `*at` on (start with `hash`); NONE where there is none. */
static inline uint32_t index_next(const struct index *index, uint32_t hash, uint32_t *at)
{
    if (index->slots == NULL)
        return NONE;
    for (;; ++*at) {
        const struct index_slot *slot = &index->slots[*at & index->mask];
        if (slot->id == NONE)
            return NONE;
        if (slot->hash == hash) {
            ++*at;
            return slot->id;
        }
    }
}

static inline void index_prefetch(const struct index *index, uint32_t hash)
{
    if (index->slots != NULL)
        __builtin_prefetch(&index->slots[hash & index->mask]);
}

#endif
