/* The parts of the core, each alone: msgpack, UTF-8, index, pool, names, keys, batches' shape. */
#include "harness.h"

#include "hash.h"

#include <math.h>

static enum msgpack_error skip(const void *bytes, size_t length, size_t *read)
{
    struct msgpack_reader reader = {bytes, (const uint8_t *)bytes + length};
    enum msgpack_error error = msgpack_skip(&reader, 0);
    *read = (size_t)(reader.at - (const uint8_t *)bytes);
    return error;
}

/* A copy of exactly `length` bytes, so that a sanitizer sees every read behind its end. */
static enum msgpack_error skip_copy(const void *bytes, size_t length, size_t *read)
{
    uint8_t *copy = malloc(length ? length : 1);
    memcpy(copy, bytes, length);
    enum msgpack_error error = skip(copy, length, read);
    free(copy);
    return error;
}

/* ---- msgpack: how values begin ----------------------------------------------------------------- */

/* What the specification says of a first byte: its type, the bytes of the number or length behind
 * it, and the bytes (or elements) that a fixed form announces. */
struct form {
    uint8_t from, to;
    enum msgpack_type type;
    unsigned width;
    bool fixed;
};

static const struct form FORMS[] = {
    {0x00, 0x7f, MSGPACK_UINT, 0, true}, {0x80, 0x8f, MSGPACK_MAP, 0, true},
    {0x90, 0x9f, MSGPACK_ARRAY, 0, true}, {0xa0, 0xbf, MSGPACK_STR, 0, true},
    {0xc0, 0xc0, MSGPACK_NIL, 0, true}, {0xc2, 0xc3, MSGPACK_BOOL, 0, true},
    {0xc4, 0xc4, MSGPACK_BIN, 1, false}, {0xc5, 0xc5, MSGPACK_BIN, 2, false},
    {0xc6, 0xc6, MSGPACK_BIN, 4, false}, {0xc7, 0xc7, MSGPACK_EXT, 1, false},
    {0xc8, 0xc8, MSGPACK_EXT, 2, false}, {0xc9, 0xc9, MSGPACK_EXT, 4, false},
    {0xca, 0xca, MSGPACK_FLOAT, 4, false}, {0xcb, 0xcb, MSGPACK_FLOAT, 8, false},
    {0xcc, 0xcc, MSGPACK_UINT, 1, false}, {0xcd, 0xcd, MSGPACK_UINT, 2, false},
    {0xce, 0xce, MSGPACK_UINT, 4, false}, {0xcf, 0xcf, MSGPACK_UINT, 8, false},
    {0xd0, 0xd0, MSGPACK_INT, 1, false}, {0xd1, 0xd1, MSGPACK_INT, 2, false},
    {0xd2, 0xd2, MSGPACK_INT, 4, false}, {0xd3, 0xd3, MSGPACK_INT, 8, false},
    {0xd4, 0xd8, MSGPACK_EXT, 0, true}, {0xd9, 0xd9, MSGPACK_STR, 1, false},
    {0xda, 0xda, MSGPACK_STR, 2, false}, {0xdb, 0xdb, MSGPACK_STR, 4, false},
    {0xdc, 0xdc, MSGPACK_ARRAY, 2, false}, {0xdd, 0xdd, MSGPACK_ARRAY, 4, false},
    {0xde, 0xde, MSGPACK_MAP, 2, false}, {0xdf, 0xdf, MSGPACK_MAP, 4, false},
    {0xe0, 0xff, MSGPACK_INT, 0, true},
};

static const struct form *form_of(uint8_t first)
{
    for (size_t at = 0; at < sizeof FORMS / sizeof *FORMS; at++)
        if (first >= FORMS[at].from && first <= FORMS[at].to)
            return &FORMS[at];
    return NULL;
}

/* Bytes behind the head of a value whose length field says `length`. */
static size_t payload_of(const struct form *form, uint8_t first, size_t length)
{
    switch (form->type) {
    case MSGPACK_STR:
        return form->fixed ? first & 0x1f : length;
    case MSGPACK_EXT:
        return 1 + (form->fixed ? (size_t)1 << (first - 0xd4) : length);
    case MSGPACK_BIN:
        return length;
    case MSGPACK_ARRAY: /* elements of one byte each */
        return form->fixed ? first & 0x0f : length;
    case MSGPACK_MAP:
        return 2 * (form->fixed ? first & 0x0fu : length);
    default:
        return 0;
    }
}

/* A value of every form and of several lengths is read whole, and refused when cut anywhere. */
static void test_every_first_byte_and_every_cut(void)
{
    static const size_t LENGTHS[] = {0, 1, 2, 31, 255, 256, 700};
    uint8_t bytes[2048];
    for (unsigned first = 0; first < 256; first++) {
        const struct form *form = form_of((uint8_t)first);
        size_t read;
        if (form == NULL) {
            CHECK(first == 0xc1);
            CHECK(skip("\xc1", 1, &read) == MSGPACK_INVALID);
            continue;
        }
        for (size_t at = 0; at < sizeof LENGTHS / sizeof *LENGTHS; at++) {
            size_t length = form->width == 1 && LENGTHS[at] > 255 ? 255 : LENGTHS[at];
            memset(bytes, 0, sizeof bytes); /* the elements: zeros */
            bytes[0] = (uint8_t)first;
            for (unsigned byte = 0; byte < form->width && byte < 8; byte++)
                bytes[form->width - byte] = (uint8_t)((uint64_t)length >> 8 * byte);
            size_t size = 1 + form->width + payload_of(form, (uint8_t)first, length);
            CHECK(skip_copy(bytes, size, &read) == MSGPACK_OK && read == size);
            CHECK(skip_copy(bytes, size + 1, &read) == MSGPACK_OK && read == size);
            for (size_t cut = 0; cut < size; cut++)
                CHECK(skip_copy(bytes, cut, &read) == MSGPACK_SHORT && read <= cut);
            struct msgpack_reader reader = {bytes, bytes + size};
            struct msgpack_head head;
            CHECK(msgpack_read(&reader, &head) == MSGPACK_OK);
            bool natural = form->type == MSGPACK_INT && first < 0xe0 &&
                           length < (uint64_t)1 << (8 * form->width - 1); /* not below zero */
            CHECK(head.type == (natural ? MSGPACK_UINT : form->type));
        }
    }
}

static void test_simple_size_agrees_with_skip(void)
{
    uint8_t bytes[64] = {0};
    for (unsigned first = 0; first < 256; first++) {
        size_t read;
        bytes[0] = (uint8_t)first;
        uint8_t size = msgpack_simple_size[first];
        if (size)
            CHECK(skip(bytes, sizeof bytes, &read) == MSGPACK_OK && read == size);
    }
}

static void test_numbers(void)
{
    static const struct {
        const char *bytes;
        size_t length;
        double number;
        bool real;
    } ROWS[] = {
        {"\x00", 1, 0, false}, {"\x7f", 1, 127, false}, {"\xff", 1, -1, false},
        {"\xe0", 1, -32, false}, {"\xcc\xff", 2, 255, false}, {"\xcd\xff\xff", 3, 65535, false},
        {"\xce\xff\xff\xff\xff", 5, 4294967295., false},
        {"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9, 18446744073709551615., false},
        {"\xd0\x80", 2, -128, false}, {"\xd0\x7f", 2, 127, false},
        {"\xd1\x80\x00", 3, -32768, false}, {"\xd2\x80\x00\x00\x00", 5, -2147483648., false},
        {"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9, -9223372036854775808., false},
        {"\xd3\x7f\xff\xff\xff\xff\xff\xff\xff", 9, 9223372036854775807., false},
        {"\xca\xbf\xc0\x00\x00", 5, -1.5, true},
        {"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00", 9, 1.5, true},
    };
    double number;
    bool real;
    for (size_t at = 0; at < sizeof ROWS / sizeof *ROWS; at++) {
        CHECK(msgpack_number((const uint8_t *)ROWS[at].bytes, ROWS[at].length, &number, &real));
        CHECK(number == ROWS[at].number && real == ROWS[at].real);
    }
    CHECK(msgpack_number((const uint8_t *)"\xca\x7f\xc0\x00\x00", 5, &number, &real));
    CHECK(isnan(number));
    static const char *const OTHERS[] = {"\xc0", "\xc2", "\xc3", "\xa1x", "\x91\x01", "\x80",
                                         "\xc4\x01x", "\xd4\x01x", "\xd9\x01x"};
    for (size_t at = 0; at < sizeof OTHERS / sizeof *OTHERS; at++)
        CHECK(!msgpack_number((const uint8_t *)OTHERS[at], 3, &number, &real));
}

static void test_nesting_is_bounded(void)
{
    uint8_t bytes[10001];
    size_t read;
    memset(bytes, 0x91, sizeof bytes); /* arrays of one */
    bytes[MSGPACK_NESTING] = 0;
    CHECK(skip(bytes, MSGPACK_NESTING + 1, &read) == MSGPACK_OK);
    CHECK(read == MSGPACK_NESTING + 1);
    bytes[MSGPACK_NESTING] = 0x91;
    bytes[MSGPACK_NESTING + 1] = 0;
    CHECK(skip(bytes, MSGPACK_NESTING + 2, &read) == MSGPACK_DEEP);
    memset(bytes, 0x81, sizeof bytes); /* a map whose key is a map */
    CHECK(skip(bytes, sizeof bytes, &read) == MSGPACK_DEEP);
    bytes[MSGPACK_NESTING] = 0x90; /* one that is empty is nested all the same */
    CHECK(skip(bytes, sizeof bytes, &read) == MSGPACK_DEEP);
    struct msgpack_reader reader = {bytes, bytes + 2};
    bytes[0] = 0x91;
    bytes[1] = 0;
    CHECK(msgpack_skip(&reader, MSGPACK_NESTING - 1) == MSGPACK_OK);
    reader.at = bytes;
    CHECK(msgpack_skip(&reader, MSGPACK_NESTING) == MSGPACK_DEEP);
}

static void test_counts_beyond_the_bytes_cost_nothing(void)
{
    static const char *const ROWS[] = {"\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff",
                                       "\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff",
                                       "\xc9\xff\xff\xff\xff"};
    size_t read;
    for (size_t at = 0; at < sizeof ROWS / sizeof *ROWS; at++)
        CHECK(skip_copy(ROWS[at], 5, &read) == MSGPACK_SHORT);
}

static void test_writer_writes_what_the_reader_reads(void)
{
    static const uint64_t NUMBERS[] = {0, 127, 128, 65535, UINT32_MAX, 1ull << 32, UINT64_MAX};
    struct msgpack_writer writer = new_writer();
    size_t opened = msgpack_open_array(&writer);
    char text[300];
    memset(text, 'x', sizeof text);
    for (size_t at = 0; at < 7; at++)
        msgpack_write_uint(&writer, NUMBERS[at]);
    msgpack_write_double(&writer, -2.5);
    msgpack_write_str(&writer, text, 31);
    msgpack_write_str(&writer, text, sizeof text);
    msgpack_write_nil(&writer);
    msgpack_write_map(&writer, 0);
    msgpack_close_array(&writer, opened, 12);
    struct msgpack_reader reader = {writer.bytes, writer.bytes + writer.length};
    struct msgpack_head head;
    CHECK(!msgpack_read(&reader, &head) && head.type == MSGPACK_ARRAY && head.length == 12);
    for (size_t at = 0; at < 7; at++)
        CHECK(!msgpack_read(&reader, &head) && head.natural == NUMBERS[at]);
    CHECK(!msgpack_read(&reader, &head) && head.real == -2.5);
    CHECK(!msgpack_read(&reader, &head) && head.type == MSGPACK_STR && head.length == 31);
    reader.at += head.length;
    CHECK(!msgpack_read(&reader, &head) && head.type == MSGPACK_STR && head.length == 300);
    reader.at += head.length;
    CHECK(!msgpack_read(&reader, &head) && head.type == MSGPACK_NIL);
    CHECK(!msgpack_read(&reader, &head) && head.type == MSGPACK_MAP && head.length == 0);
    CHECK(reader.at == reader.end);
    msgpack_writer_free(&writer);
}

/* ---- UTF-8 -------------------------------------------------------------------------------------- */

/* RFC 3629, told the long way: decode, and compare with what the number would be written as. */
static bool is_one_character(const uint8_t *text, size_t length)
{
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t number = text[0];
    if (length == 1)
        return number < 0x80;
    if (number >> (7 - length) != (0xffu >> (7 - length) & ~1u))
        return false;
    number &= 0x7fu >> length;
    for (size_t at = 1; at < length; at++) {
        if (text[at] >> 6 != 2)
            return false;
        number = number << 6 | (text[at] & 0x3f);
    }
    return number >= LEAST[length] && number <= 0x10ffff && !(number >= 0xd800 && number < 0xe000);
}

static bool is_text(const uint8_t *text, size_t length)
{
    while (length > 0) {
        size_t size = 1;
        while (size <= 4 && size <= length && !is_one_character(text, size))
            size++;
        if (size > 4 || size > length)
            return false;
        text += size;
        length -= size;
    }
    return true;
}

static void test_every_sequence_of_three_bytes_as_utf8(void)
{
    for (uint32_t word = 0; word < 1u << 24; word++) {
        uint8_t bytes[3] = {(uint8_t)(word >> 16), (uint8_t)(word >> 8), (uint8_t)word};
        for (size_t length = 1; length <= 3; length++) /* the shorter ones once each */
            if (length == 3 || word % (1u << 8 * (3 - length)) == 0)
                CHECK(msgpack_is_utf8(bytes, length) == is_text(bytes, length));
    }
}

static void test_four_bytes_at_their_boundaries_as_utf8(void)
{
    static const uint8_t EDGES[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    const size_t count = sizeof EDGES;
    for (unsigned first = 0xe0; first < 256; first++)
        for (size_t at = 0; at < count * count * count; at++) {
            uint8_t bytes[4] = {(uint8_t)first, EDGES[at % count], EDGES[at / count % count],
                                EDGES[at / count / count]};
            CHECK(msgpack_is_utf8(bytes, 4) == is_text(bytes, 4));
        }
}

static void test_a_bad_byte_anywhere_in_a_long_text(void)
{
    uint8_t text[40];
    for (size_t length = 0; length <= sizeof text; length++) {
        memset(text, 'a', sizeof text);
        CHECK(msgpack_is_utf8(text, length));
        for (size_t at = 0; at < length; at++) {
            text[at] = 0xff;
            CHECK(!msgpack_is_utf8(text, length));
            text[at] = 'a';
        }
    }
}

/* ---- index, pool, names, keys --------------------------------------------------------------------- */

static uint32_t random_state = 1;

static uint32_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state;
}

static bool index_holds(const struct index *index, uint32_t hash, uint32_t id)
{
    uint32_t at = hash, found;
    while ((found = index_next(index, hash, &at)) != NONE)
        if (found == id)
            return true;
    return false;
}

/* Few different hashes, all at the end of the table, so that runs are long and wrap around. */
static void test_index_against_a_plain_array(void)
{
    enum { IDS = 600 };
    struct memory memory;
    struct index index = {0};
    bool held[IDS] = {false};
    uint32_t hashes[IDS], used = 0;
    memory_init(&memory);
    CHECK(index_next(&index, 7, &(uint32_t){7}) == NONE);
    for (uint32_t id = 0; id < IDS; id++)
        hashes[id] = UINT32_MAX - random_number() % 40;
    for (unsigned step = 0; step < 30000; step++) {
        uint32_t id = random_number() % IDS;
        if (held[id]) {
            index_remove(&index, hashes[id], id);
        } else {
            CHECK(index_reserve(&index, &memory) == 0);
            index_put(&index, hashes[id], id);
        }
        held[id] = !held[id];
        used += held[id] ? 1 : UINT32_MAX;
        CHECK(index.used == used);
        for (uint32_t other = step % 50; other < IDS; other += 50)
            CHECK(index_holds(&index, hashes[other], other) == held[other]);
    }
    index_free(&index, &memory);
    CHECK(memory.used == 0);
}

static void test_pool_gives_zeroed_cells_that_never_move(void)
{
    enum { CELLS = 2000 };
    struct memory memory;
    struct pool pool;
    uint32_t *cells[CELLS];
    memory_init(&memory);
    pool_init(&pool, 24, 16);
    for (uint32_t at = 0; at < CELLS; at++) {
        CHECK(pool_take(&pool, &memory) == at);
        cells[at] = pool_at(&pool, at);
        CHECK(cells[at][0] == 0 && cells[at][5] == 0);
        cells[at][0] = cells[at][5] = at + 1;
    }
    for (uint32_t at = 0; at < CELLS; at++)
        CHECK(pool_at(&pool, at) == cells[at] && cells[at][5] == at + 1);
    for (uint32_t at = 0; at < CELLS; at += 3)
        pool_give(&pool, at);
    size_t used = memory.used;
    for (uint32_t at = 0; at < CELLS; at += 3) {
        uint32_t id = pool_take(&pool, &memory);
        CHECK(id % 3 == 0 && cells[id][0] == 0 && cells[id][5] == 0);
    }
    CHECK(memory.used == used && pool.live == CELLS);
    CHECK(pool_reserve(&pool, &memory, CELLS + 1000) == 0 && pool_ids(&pool) >= CELLS + 1000);
    pool_free(&pool, &memory);
    CHECK(memory.used == 0);
}

static void test_names_are_readable_until_recycled(void)
{
    struct memory memory;
    struct names names;
    memory_init(&memory);
    names_init(&names, 5);
    uint32_t hash = names_hash(&names, "one", 3);
    uint32_t one = names_add(&names, &memory, hash, "one", 3);
    names_at(&names, one)->refs = 2;
    CHECK(names_find(&names, hash, "one", 3) == one);
    CHECK(names_find(&names, hash, "on", 2) == NONE);
    names_drop(&names, one);
    CHECK(names_find(&names, hash, "one", 3) == one);
    names_drop(&names, one);
    CHECK(names_find(&names, hash, "one", 3) == NONE);
    CHECK(memcmp(names_at(&names, one)->text, "one", 3) == 0);
    uint32_t again = names_add(&names, &memory, hash, "one", 3);
    CHECK(again != one);
    names_recycle(&names, &memory);
    CHECK(names_at(&names, one) == NULL && names_find(&names, hash, "one", 3) == again);
    CHECK(names_add(&names, &memory, names_hash(&names, "two", 3), "two", 3) == one);
    names_free(&names, &memory);
    CHECK(memory.used == 0);
}

static void test_keys_are_readable_until_recycled(void)
{
    struct memory memory;
    struct keys keys;
    memory_init(&memory);
    keys_init(&keys);
    for (uint32_t at = 0; at < 1000; at++) {
        char text[16];
        size_t length = (size_t)snprintf(text, sizeof text, "t:%u", at);
        CHECK(keys_add(&keys, &memory, at % 7, text, length)->id == at);
    }
    for (uint32_t at = 0; at < 1000; at += 2)
        keys_remove(&keys, keys.entries[at]);
    CHECK(keys.live == 500 && keys_find(&keys, 998 % 7, "t:998", 5) == NULL);
    CHECK(keys_find(&keys, 999 % 7, "t:999", 5)->id == 999 && keys.entries[998]->gone);
    keys_recycle(&keys, &memory);
    CHECK(keys.entries[998] == NULL);
    CHECK(keys_add(&keys, &memory, 3, "t:new", 5)->id % 2 == 0);
    keys_free(&keys, &memory);
    CHECK(memory.used == 0);
}

/* ---- patterns ------------------------------------------------------------------------------------- */

static bool matches(const char *pattern, const char *text)
{
    if (*pattern == '*')
        return matches(pattern + 1, text) || (*text && matches(pattern, text + 1));
    return *pattern == *text && (*pattern == 0 || matches(pattern + 1, text + 1));
}

static void test_keys_match_against_a_recursive_one(void)
{
    static const char LETTERS[] = "ab*";
    for (unsigned one = 0; one < 729; one++)
        for (unsigned other = 0; other < 64; other++) {
            char pattern[7] = {0}, text[7] = {0};
            for (unsigned at = 0, rest = one; at < one % 7; at++, rest /= 3)
                pattern[at] = LETTERS[rest % 3];
            for (unsigned at = 0; at < other % 7; at++)
                text[at] = LETTERS[other >> at & 1];
            CHECK(keys_match(pattern, strlen(pattern), text, strlen(text)) ==
                  matches(pattern, text));
        }
}

static void test_keys_match_takes_no_exponential_time(void)
{
    char pattern[64], text[1024];
    for (unsigned at = 0; at < sizeof pattern; at++)
        pattern[at] = at % 2 ? '*' : 'a';
    memset(text, 'a', sizeof text);
    CHECK(keys_match(pattern, sizeof pattern, text, sizeof text));
    pattern[sizeof pattern - 1] = 'b';
    CHECK(!keys_match(pattern, sizeof pattern, text, sizeof text));
}

/* ---- hashes ---------------------------------------------------------------------------------------- */

/* Values of org.apache.kafka.common.utils.Utils.murmur2, from Kafka's own UtilsTest. */
static void test_murmur2_is_kafkas(void)
{
    static const struct {
        const char *text;
        int32_t hash;
    } ROWS[] = {{"21", -973932308}, {"foobar", -790332482}, {"a-little-bit-long-string", -985981536},
                {"a-little-bit-longer-string", -1486304829},
                {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
                {"abc", 479470107}};
    for (size_t at = 0; at < sizeof ROWS / sizeof *ROWS; at++)
        CHECK((int32_t)hash_murmur2((const uint8_t *)ROWS[at].text, strlen(ROWS[at].text)) ==
              ROWS[at].hash);
}

static void test_names_in_batches(void)
{
    static const char *const GOOD[] = {"a", "_", "A9_z"}, *const BAD[] = {"", "9a", "a-b", "a\xc3"};
    for (size_t at = 0; at < 3; at++)
        CHECK(batch_is_name((const uint8_t *)GOOD[at], strlen(GOOD[at])));
    for (size_t at = 0; at < 4; at++)
        CHECK(!batch_is_name((const uint8_t *)BAD[at], strlen(BAD[at])));
    static const char *const KEYS[] = {"t:n", "t::", "\xc3\xa9:x"},
                      *const NO_KEYS[] = {"", ":", "t:", ":n", "tn", "t:\xff"};
    for (size_t at = 0; at < 3; at++)
        CHECK(batch_is_key((const uint8_t *)KEYS[at], strlen(KEYS[at])));
    for (size_t at = 0; at < 6; at++)
        CHECK(!batch_is_key((const uint8_t *)NO_KEYS[at], strlen(NO_KEYS[at])));
    static const char *const TYPES[] = {"none", "sum", "union", "append", "append:x"},
                      *const NO_TYPES[] = {"", "max", "append:", "appendx", "summ"};
    for (size_t at = 0; at < 5; at++) {
        CHECK(batch_is_aggtype((const uint8_t *)TYPES[at], strlen(TYPES[at])));
        CHECK(!batch_is_aggtype((const uint8_t *)NO_TYPES[at], strlen(NO_TYPES[at])));
    }
}

int main(void)
{
    RUN(test_every_first_byte_and_every_cut);
    RUN(test_simple_size_agrees_with_skip);
    RUN(test_numbers);
    RUN(test_nesting_is_bounded);
    RUN(test_counts_beyond_the_bytes_cost_nothing);
    RUN(test_writer_writes_what_the_reader_reads);
    RUN(test_every_sequence_of_three_bytes_as_utf8);
    RUN(test_four_bytes_at_their_boundaries_as_utf8);
    RUN(test_a_bad_byte_anywhere_in_a_long_text);
    RUN(test_index_against_a_plain_array);
    RUN(test_pool_gives_zeroed_cells_that_never_move);
    RUN(test_names_are_readable_until_recycled);
    RUN(test_keys_are_readable_until_recycled);
    RUN(test_keys_match_against_a_recursive_one);
    RUN(test_keys_match_takes_no_exponential_time);
    RUN(test_murmur2_is_kafkas);
    RUN(test_names_in_batches);
    return 0;
}
