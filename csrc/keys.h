/* keys.h: the UVE keys of a partition.
 *
 *     entries  id -> | id | hash | records, series, table | length | text ... |
 *     index    hash of the text -> id
 *
 * A key lives while a source tells of it or a proxy UVE of it is alive. As with names, the id and
 * the text of one that went stay readable: until keys_recycle, or until keys_hold was called twice.
 */
#ifndef COLLECTORD_KEYS_H
#define COLLECTORD_KEYS_H

#include "index.h"
#include "memory.h"

#include <stdbool.h>

struct key {
    uint32_t id;
    uint32_t hash;
    uint32_t first_record; /* list through record.next */
    uint32_t record_count;
    uint32_t first_series; /* list through series.sibling */
    uint32_t next;         /* of the retired ones */
    uint32_t table;        /* id of the table's name */
    uint16_t first_metric; /* the metric of first_series */
    uint16_t length;
    bool gone;
    char text[];
};

struct keys {
    struct key **entries;
    size_t capacity;
    uint32_t count;   /* ids given out so far */
    uint32_t live;
    uint32_t retired; /* list of those that went */
    uint32_t held;    /* list of those that went before keys_hold was last called */
    uint32_t *vacant;
    size_t vacant_capacity;
    uint32_t vacant_count;
    struct index index;
};

void keys_init(struct keys *keys);
struct key *keys_find(const struct keys *keys, uint32_t hash, const void *text, size_t length);

/* A new key, which must not be there yet; NULL (no memory). */
struct key *keys_add(struct keys *keys, struct memory *memory, uint32_t hash, const void *text,
                     size_t length);
void keys_remove(struct keys *keys, struct key *key);
void keys_recycle(struct keys *keys, struct memory *memory);
void keys_hold(struct keys *keys, struct memory *memory);
void keys_free(struct keys *keys, struct memory *memory);

/* Whether `text` is what `pattern` says; * stands for any run of bytes. In time linear in both. */
bool keys_match(const char *pattern, size_t pattern_length, const char *text, size_t length);

#endif
