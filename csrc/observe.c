/* observe.c: what somebody wants to hear of by name. Names are looked for when a struct, a column or
 * a metric comes to be known, and leave a mark there: applying a batch only looks at marks. */
#include "partition.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int compare(const struct text *one, const char *name, size_t length)
{
    if (one->length != length)
        return one->length < length ? -1 : 1;
    return memcmp(one->bytes, name, length);
}

static const struct observed_name *find(const struct observed *observed, const char *name,
                                        size_t length)
{
    size_t low = 0, high = observed == NULL ? 0 : observed->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(&observed->names[middle].text, name, length);
        if (order == 0)
            return &observed->names[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

bool partition_observes_struct(const struct partition *partition, const char *name, size_t length)
{
    return find(partition->observed, name, length) || find(partition->observed, "*", 1);
}

uint32_t partition_observes_column(const struct partition *partition, const char *name,
                                   size_t length, size_t struct_length)
{
    char all[METRIC_NAME];
    memcpy(all, name, struct_length);
    memcpy(all + struct_length, "-*", 2);
    const struct observed *observed = partition->observed;
    const struct observed_name *found = find(observed, "*-*", 3);
    if (found == NULL)
        found = find(observed, all, struct_length + 2);
    if (found == NULL)
        found = find(observed, name, length);
    return found ? (uint32_t)(found - observed->names) + 1 : 0;
}

/* Where a number lies among thresholds: below, at, or above each of them. */
static size_t rank(const struct observed_name *name, double value)
{
    size_t at = 0;
    while (at < name->count && value > name->thresholds[at])
        at++;
    return 2 * at + (at < name->count && value >= name->thresholds[at]);
}

bool observed_crosses(const struct observed_name *name, double before, double now)
{
    return name->count == 0 || isnan(before) || isnan(now) ||
           rank(name, before) != rank(name, now);
}

static void mark_columns(struct partition *partition)
{
    for (uint32_t id = 0; id < partition->columns.count; id++) {
        struct name *column = names_at(&partition->columns, id);
        const char *dash = column == NULL ? NULL : memchr(column->text, '-', column->length);
        if (dash != NULL)
            column->number = partition_observes_column(partition, column->text, column->length,
                                                       (size_t)(dash - column->text));
    }
}

static void mark_structs(struct partition *partition)
{
    for (uint32_t id = 0; id < partition->structs.count; id++) {
        struct name *name = names_at(&partition->structs, id);
        if (name != NULL)
            name->number = partition_observes_struct(partition, name->text, name->length);
    }
}

static const struct observed_name *find_part(const struct partition *partition,
                                             const struct metric *metric, unsigned at,
                                             const char *part)
{
    char name[ALGORITHM_NAME + METRIC_NAME + sizeof ".staging"];
    int length =
        snprintf(name, sizeof name, "%s-%s%s", metric->algorithms[at].name, metric->name, part);
    const struct observed_name *all =
        *part ? find(partition->observed, "*-*", 3) : find(partition->observed, "*", 1);
    return all ? all : find(partition->observed, name, (size_t)length);
}

static void mark_metric(const struct partition *partition, struct metric *metric)
{
    metric->observed = metric->observed_staging = 0;
    for (unsigned at = 0; at < metric->algorithm_count; at++) {
        uint16_t algorithm = (uint16_t)(1u << at);
        if (find_part(partition, metric, at, ""))
            metric->observed |= algorithm;
        if (find_part(partition, metric, at, ".staging"))
            metric->observed_staging |= algorithm & metric->staging;
        metric->observed_value[at] = find_part(partition, metric, at, ".value");
        metric->observed_sigma[at] = find_part(partition, metric, at, ".sigma");
    }
}

void partition_observe(struct partition *partition, const struct observed *observed)
{
    partition->observed = observed;
    mark_columns(partition);
    mark_structs(partition);
    for (uint32_t number = 0; number < partition->metric_count; number++)
        mark_metric(partition, &partition->metrics[number]);
}
