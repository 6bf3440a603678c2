/* read.c: what is known of a key, written as one msgpack value: [records, proxies].
 *
 *     records  [[struct, source, {attribute: value, ...}], ...]
 *     proxies  [[metric, algorithm, real, value, staging, samples, mean, stddev, sigma], ...]
 *
 * value and staging are nil where there is none; real tells that they are floats.
 */
#include "hash.h"
#include "partition.h"

#include <math.h>
#include <string.h>

static uint32_t present_slots(struct record *record)
{
    uint32_t present = 0;
    for (unsigned at = 0; at < record->count; at++)
        present += record_slots(record)[at].length != 0;
    return present;
}

static void write_record(const struct partition *partition, struct record *record,
                         uint32_t present, struct msgpack_writer *writer)
{
    const struct name *struct_name = names_at(&partition->structs, record->struct_name);
    const struct name *source = names_at(&partition->sources, record->source);
    msgpack_write_array(writer, 3);
    msgpack_write_str(writer, struct_name->text, struct_name->length);
    msgpack_write_str(writer, source->text, source->length);
    msgpack_write_map(writer, present);
    for (unsigned at = 0; at < record->count; at++) {
        const struct slot *slot = &record_slots(record)[at];
        if (slot->length == 0)
            continue;
        const struct name *column = names_at(&partition->columns, slot->column);
        uint32_t length, behind = struct_name->length + 1;
        const uint8_t *value = record_value(slot, &length);
        msgpack_write_str(writer, column->text + behind, column->length - behind);
        msgpack_write_raw(writer, value, length);
    }
}

static void write_optional(struct msgpack_writer *writer, bool present, double value)
{
    if (present)
        msgpack_write_double(writer, value);
    else
        msgpack_write_nil(writer);
}

static void write_proxy(const struct metric *metric, const struct series *series, unsigned at,
                        struct msgpack_writer *writer)
{
    const struct algorithm *algorithm = &metric->algorithms[at];
    struct result last = {0};
    if (series->started & 1u << at)
        algorithm->detector->show(algorithm, series_state(algorithm, series), &last);
    bool staged = algorithm->detector->has_staging && series_has_open(series);
    double staging =
        staged ? algorithm->reducer->reduce(metric, series, series->newest % RING) : 0;
    msgpack_write_array(writer, 9);
    msgpack_write_str(writer, metric->name, metric->name_length);
    msgpack_write_str(writer, algorithm->name, strlen(algorithm->name));
    msgpack_write_uint(writer, series->real || algorithm->reducer->always_real);
    write_optional(writer, last.flags & RESULT_REPORTED, last.value);
    write_optional(writer, staged && !isnan(staging), staging);
    msgpack_write_uint(writer, last.samples);
    msgpack_write_double(writer, last.mean);
    msgpack_write_double(writer, last.stddev);
    msgpack_write_double(writer, last.sigma);
}

static uint32_t write_records(struct partition *partition, const struct key *key,
                              struct msgpack_writer *writer)
{
    uint32_t written = 0;
    for (uint32_t id = key->first_record; id != NONE;) {
        struct record *record = pool_at(&partition->records, id);
        uint32_t present = present_slots(record);
        if (present > 0) { /* else it is being made, or about to go */
            write_record(partition, record, present, writer);
            written++;
        }
        id = record->next;
    }
    return written;
}

static uint32_t write_proxies(struct partition *partition, const struct key *key,
                              struct msgpack_writer *writer)
{
    uint32_t written = 0;
    for (uint32_t id = key->first_series, of = key->first_metric; id != NONE;) {
        const struct metric *metric = &partition->metrics[of];
        const struct series *series = series_at(metric, id);
        for (unsigned at = 0; at < metric->algorithm_count; at++) {
            if (series->live & 1u << at) {
                write_proxy(metric, series, at, writer);
                written++;
            }
        }
        id = series->sibling;
        of = series->sibling_metric;
    }
    return written;
}

static const struct key *find_key(const struct partition *partition, const void *text,
                                  size_t length)
{
    uint32_t hash = hash_name(text, length, partition->structs.seed);
    return keys_find(&partition->keys, hash, text, length);
}

uint32_t partition_record_count(struct partition *partition, const void *text, size_t length)
{
    const struct key *key = find_key(partition, text, length);
    return key == NULL ? 0 : key->record_count;
}

bool partition_read(struct partition *partition, const void *text, size_t length,
                    struct msgpack_writer *writer)
{
    const struct key *key = find_key(partition, text, length);
    if (key == NULL)
        return false;
    msgpack_write_array(writer, 2);
    size_t opened = msgpack_open_array(writer);
    uint32_t records = write_records(partition, key, writer);
    msgpack_close_array(writer, opened, records);
    opened = msgpack_open_array(writer);
    uint32_t proxies = write_proxies(partition, key, writer);
    msgpack_close_array(writer, opened, proxies);
    return records + proxies > 0;
}
