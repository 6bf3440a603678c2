/* hash.h: the two hashes of the house.
 *
 * hash_bytes places names in hash tables. It is seeded, so that who sends keys can't choose which
 * of them collide; state never depends on the seed.
 *
 * hash_murmur2 places keys in partitions. It is murmur2 with the seed of Kafka's default
 * partitioner (org.apache.kafka.common.utils.Utils.murmur2), bit for bit, so that a producer that
 * keys its messages by the UVE key agrees with us on the partition.
 */
#ifndef COLLECTORD_HASH_H
#define COLLECTORD_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t hash_load64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline uint32_t hash_load32(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* The two halves of a 128-bit product, folded: a full mix of 16 bytes in one multiplication. */
static inline uint64_t hash_fold(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t hash_bytes(const void *bytes, size_t length, uint64_t seed)
{
    const uint64_t odd1 = 0x9e3779b97f4a7c15u, odd2 = 0xc2b2ae3d27d4eb4fu;
    const uint8_t *at = bytes;
    size_t left = length;
    uint64_t secret = seed ^ odd1, hash = seed ^ odd2;
    for (; left > 16; left -= 16, at += 16)
        hash = hash_fold(hash_load64(at) ^ secret, hash_load64(at + 8) ^ hash);
    uint64_t low = 0, high = 0;
    if (left >= 8) { /* the two words may overlap; together they hold every byte */
        low = hash_load64(at);
        high = hash_load64(at + left - 8);
    } else if (left >= 4) {
        low = hash_load32(at);
        high = hash_load32(at + left - 4);
    } else if (left > 0) {
        low = (uint64_t)at[0] << 16 | (uint64_t)at[left / 2] << 8 | at[left - 1];
    }
    hash = hash_fold(low ^ secret, high ^ hash);
    return hash_fold(hash ^ seed, length ^ odd2);
}

/* The 32-bit hash of a name or a key. */
static inline uint32_t hash_name(const void *text, size_t length, uint64_t seed)
{
    uint64_t hash = hash_bytes(text, length, seed);
    return (uint32_t)(hash ^ hash >> 32);
}

/* The hash of a record out of those of its names. */
static inline uint32_t hash_record(uint32_t key, uint32_t struct_name, uint32_t source)
{
    uint64_t names = (uint64_t)struct_name << 32 | source;
    uint64_t hash = hash_fold(key ^ 0x9e3779b97f4a7c15u, names ^ 0xc2b2ae3d27d4eb4fu);
    return (uint32_t)(hash ^ hash >> 32);
}

static inline uint32_t hash_murmur2(const uint8_t *bytes, size_t length)
{
    const uint32_t m = 0x5bd1e995u;
    uint32_t hash = 0x9747b28cu ^ (uint32_t)length;
    for (; length >= 4; length -= 4, bytes += 4) {
        uint32_t word = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
                        (uint32_t)bytes[3] << 24;
        word *= m;
        word ^= word >> 24;
        word *= m;
        hash = hash * m ^ word;
    }
    if (length >= 3)
        hash ^= (uint32_t)bytes[2] << 16;
    if (length >= 2)
        hash ^= (uint32_t)bytes[1] << 8;
    if (length >= 1)
        hash = (hash ^ bytes[0]) * m;
    hash ^= hash >> 13;
    hash *= m;
    return hash ^ hash >> 15;
}

/* The partition of a key, as Kafka's default partitioner computes it. */
static inline uint32_t hash_partition(const uint8_t *key, size_t length, uint32_t partitions)
{
    return (hash_murmur2(key, length) & 0x7fffffffu) % partitions;
}

#endif
