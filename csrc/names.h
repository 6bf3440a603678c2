/* names.h: interned texts with a count of who uses them: structs, columns, sources, tables.
 *
 *     entries  id -> | refs | hash | tag | length | text ... |
 *     index    hash of the text -> id
 *
 * A name whose last user is gone leaves the index at once, but its text and its id stay until
 * names_recycle, so that an id given out to a reader holds until the owner says otherwise.
 */
#ifndef COLLECTORD_NAMES_H
#define COLLECTORD_NAMES_H

#include "index.h"
#include "memory.h"

struct name {
    uint32_t refs;
    uint32_t hash;
    uint32_t next; /* of the retired or of the free ones */
    int32_t tag;   /* the owner's */
    uint32_t number; /* the owner's, too */
    uint32_t length;
    char text[];
};

struct names {
    struct name **entries;
    size_t capacity;
    uint32_t count;   /* ids given out so far, retired and free ones included */
    uint32_t retired; /* list of ids that wait for names_recycle, or NONE */
    uint32_t *vacant; /* stack of ids to use again, room for `capacity` */
    size_t vacant_capacity;
    uint32_t vacant_count;
    struct index index;
    uint64_t seed;
};

void names_init(struct names *names, uint64_t seed);
uint32_t names_hash(const struct names *names, const void *text, size_t length);

/* The id of a text, or NONE. */
uint32_t names_find(const struct names *names, uint32_t hash, const void *text, size_t length);

/* A new name without a user, which must not be there yet; NONE (no memory). */
uint32_t names_add(struct names *names, struct memory *memory, uint32_t hash, const void *text,
                   size_t length);

/* The id of a text, which is made if need be; NONE (no memory). */
uint32_t names_intern(struct names *names, struct memory *memory, const void *text, size_t length);

/* One user fewer; the last one retires the name. */
void names_drop(struct names *names, uint32_t id);
void names_recycle(struct names *names, struct memory *memory);
void names_free(struct names *names, struct memory *memory);

static inline struct name *names_at(const struct names *names, uint32_t id)
{
    return names->entries[id];
}

#endif
