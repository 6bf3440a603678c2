#include "index.h"

static size_t slots_size(const struct index *index)
{
    return index->slots ? ((size_t)index->mask + 1) * sizeof *index->slots : 0;
}

int index_reserve(struct index *index, struct memory *memory)
{
    size_t room = index->slots ? (size_t)index->mask + 1 : 0;
    if ((size_t)index->used + 1 <= room / 4 * 3)
        return 0;
    size_t wanted = room ? room * 2 : 16;
    if (wanted > (size_t)1 << 31)
        return -1;
    struct index grown = {memory_get(memory, wanted * sizeof *grown.slots), (uint32_t)wanted - 1,
                          0};
    if (grown.slots == NULL)
        return -1;
    for (size_t at = 0; at < wanted; at++)
        grown.slots[at].id = NONE;
    for (size_t at = 0; at < room; at++)
        if (index->slots[at].id != NONE)
            index_put(&grown, index->slots[at].hash, index->slots[at].id);
    memory_free(memory, index->slots, slots_size(index));
    *index = grown;
    return 0;
}

void index_put(struct index *index, uint32_t hash, uint32_t id)
{
    uint32_t at = hash;
    while (index->slots[at & index->mask].id != NONE)
        at++;
    index->slots[at & index->mask] = (struct index_slot){hash, id};
    index->used++;
}

void index_remove(struct index *index, uint32_t hash, uint32_t id)
{
    uint32_t mask = index->mask, hole = hash & mask;
    while (index->slots[hole].id != id)
        hole = (hole + 1) & mask;
    /* Shift back every follower whose own place is not behind the hole. */
    for (uint32_t at = (hole + 1) & mask; index->slots[at].id != NONE; at = (at + 1) & mask) {
        uint32_t home = index->slots[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            index->slots[hole] = index->slots[at];
            hole = at;
        }
    }
    index->slots[hole].id = NONE;
    index->used--;
}

void index_free(struct index *index, struct memory *memory)
{
    memory_free(memory, index->slots, slots_size(index));
    *index = (struct index){0};
}
