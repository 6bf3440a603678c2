"""What the Cython face knows of the C core; the headers in ``csrc/`` explain it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "memory.h":
    cdef struct memory:
        size_t used

    void memory_init(memory *) nogil
    void memory_free(memory *, void *, size_t) nogil


cdef extern from "hash.h":
    uint32_t hash_partition(const uint8_t *, size_t, uint32_t) nogil


cdef extern from "msgpack.h":
    cdef struct msgpack_writer:
        memory *memory
        uint8_t *bytes
        size_t length
        size_t capacity
        bint failed

    void msgpack_writer_free(msgpack_writer *) nogil


cdef extern from "batch.h":
    cdef struct batch_fault:
        const char *message
        size_t offset

    const char *rejection_codes[]
    const char *rejection_messages[]
    enum:
        REJECTIONS


cdef extern from "series.h":
    enum:
        ALGORITHMS
        ALGORITHM_NAME
        METRIC_NAME

    cdef struct reducer:
        const char *name

    cdef struct detector:
        const char *name

    const reducer reducers[]
    const detector detectors[]
    const unsigned reducer_count
    const unsigned detector_count
    const reducer *reducer_named(const char *) nogil
    const detector *detector_named(const char *) nogil

    cdef struct algorithm:
        char name[64]
        const reducer *reducer
        const detector *detector
        double alpha
        uint32_t timeout

    cdef struct metric:
        char name[258]
        uint16_t name_length
        uint16_t algorithm_count
        algorithm algorithms[16]

    void metric_layout(metric *) nogil


cdef extern from "partition.h":
    cdef struct text:
        const char *bytes
        size_t length

    cdef struct key:
        char *text
        uint16_t length

    cdef struct keys:
        key **entries
        uint32_t count

    cdef struct result:
        pass

    cdef struct partition_counters:
        uint64_t samples, late, closed, deleted, results_dropped, changes_dropped, observed_dropped

    cdef struct partition:
        keys keys
        metric *metrics
        uint32_t metric_count

    cdef struct moment:
        uint64_t wall
        uint64_t steady

    cdef struct limits:
        uint64_t keys, records, bytes, results, source_records, source_bytes
        uint64_t held_keys, held_records, held_series

    enum:
        ANNOUNCED
        OBSERVED

    cdef struct observed_name:
        text text
        const double *thresholds
        size_t count

    cdef struct observed:
        observed_name *names
        size_t count

    void partition_watch(partition *, unsigned, bint) nogil
    size_t partition_change_count(const partition *, unsigned) nogil
    void partition_take_changes(
        partition *, unsigned, const text *, size_t, msgpack_writer *
    ) nogil
    void partition_observe(partition *, const observed *) nogil
    result *partition_take_results(partition *, size_t *, size_t *) nogil
    void partition_give_results(partition *, result *, size_t) nogil
    uint32_t partition_record_count(partition *, const void *, size_t) nogil
    bint partition_read(partition *, const void *, size_t, msgpack_writer *) nogil


cdef extern from "engine.h":
    enum:
        OUTCOME_REJECTED
        OUTCOMES
        OUTCOME_APPLIED

    const char *outcome_names[]

    cdef struct outcome_row:
        uint32_t index
        uint8_t rejection

    cdef struct outcome:
        int status
        bint answer
        bint has_seq
        uint32_t source
        uint64_t seq, last, durable, expired
        uint32_t applied, rejected
        outcome_row rows[16]
        batch_fault fault

    cdef struct speaker:
        const text *patterns
        size_t count

    cdef struct message:
        const char *bytes
        size_t length
        const speaker *speaker

    cdef enum restore_status:
        RESTORE_OK
        RESTORE_BROKEN
        RESTORE_NO_MEMORY

    cdef struct engine_counters:
        uint64_t bytes, records, aggtypes_dropped
        uint64_t outcomes[8]
        uint64_t rejected[14]

    cdef struct engine:
        memory memory
        limits limits
        uint64_t batch_bytes, source_limit, aggtype_limit
        partition *partitions
        uint32_t partition_count
        engine_counters counters
        uint64_t aggtypes_version

    cdef struct key_query:
        text table, match, after
        const text *patterns
        size_t pattern_count, limit

    cdef struct listed_key:
        char *text
        size_t length

    cdef struct key_list:
        listed_key *keys
        size_t count
        bint failed

    int engine_init(engine *, uint32_t, uint64_t, void *, void *) nogil
    void engine_free(engine *) nogil
    int engine_configure(engine *, const metric *, uint32_t, uint64_t) nogil
    void engine_apply(engine *, const message *, size_t, moment, outcome *) nogil
    uint64_t engine_advance(engine *, uint32_t, moment) nogil
    void engine_expire(engine *, uint64_t, uint64_t, msgpack_writer *) nogil
    uint32_t engine_settle(engine *, uint64_t, uint64_t) nogil
    uint32_t engine_settle_all(engine *) nogil
    void engine_untold(engine *, uint64_t, uint64_t, msgpack_writer *) nogil
    bint engine_begin_save(engine *) nogil
    void engine_save_partition(engine *, uint32_t, moment, msgpack_writer *) nogil
    void engine_save_head(engine *, moment, msgpack_writer *) nogil
    void engine_end_save(engine *, bint) nogil
    restore_status engine_restore_head(
        engine *, const uint8_t *, size_t, moment, batch_fault *
    ) nogil
    restore_status engine_restore_partition(
        engine *, const uint8_t *, size_t, moment, batch_fault *
    ) nogil
    restore_status engine_restore_end(engine *, batch_fault *) nogil
    void engine_lock(engine *, uint32_t) nogil
    void engine_unlock(engine *, uint32_t) nogil
    void engine_keys(engine *, const key_query *, key_list *) nogil
    void key_list_free(key_list *) nogil
    void engine_tables(engine *, msgpack_writer *) nogil
    void engine_sources(engine *, msgpack_writer *) nogil
    void engine_source_records(engine *, msgpack_writer *) nogil
    void engine_aggtypes(engine *, msgpack_writer *) nogil
    uint32_t engine_source_count(engine *) nogil
    engine_counters engine_own_counters(engine *) nogil
    partition_counters engine_partition_counters(engine *) nogil
