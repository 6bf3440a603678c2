# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The Cython face of the C core: arguments in, calls without the GIL, results out."""

import math

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from collectord.engine._decode import ProxyState, decode, decode_read

cnp.import_array()

REDUCERS = tuple(reducers[row].name.decode() for row in range(reducer_count))
DETECTORS = tuple(detectors[row].name.decode() for row in range(detector_count))

RESULT = np.dtype(
    [
        ("key", np.uint32),
        ("period", np.uint32),
        ("value", np.float64),
        ("mean", np.float64),
        ("stddev", np.float64),
        ("sigma", np.float64),
        ("samples", np.uint32),
        ("metric", np.uint16),
        ("algorithm", np.uint8),
        ("flags", np.uint8),
    ]
)

cdef list _OUTCOMES = [outcome_names[row].decode() for row in range(OUTCOMES)]
cdef list _REJECTIONS = [
    (rejection_codes[row].decode(), rejection_messages[row].decode()) for row in range(REJECTIONS)
]
_LIMITS = (
    "keys",
    "records",
    "sources",
    "aggtypes",
    "bytes",
    "source_records",
    "source_bytes",
    "batch_bytes",
    "results",
)
cdef uint32_t NONE = 0xFFFFFFFF
# Numbers of periods are 32 bits: this is the year 10000 and some.
cdef uint64_t _LAST_TIME = 250_000_000_000_000_000
# Messages that are applied under one release of the GIL.
cdef enum:
    AT_ONCE = 512


def partition_of(bytes key not None, uint32_t partitions):
    if partitions == 0:
        raise ValueError("there is at least one partition")
    return hash_partition(<const uint8_t *>PyBytes_AS_STRING(key), len(key), partitions)


cdef class Outcome:
    cdef readonly str status
    cdef readonly object seq
    cdef readonly uint32_t applied
    cdef readonly uint64_t last
    cdef readonly uint64_t durable
    cdef readonly bint answer
    cdef readonly uint64_t expired
    cdef readonly object source
    cdef readonly str message
    cdef readonly list rejected

    def __repr__(self):
        return f"<Outcome {self.status} seq={self.seq} applied={self.applied} {self.message}>"


cdef Outcome _outcome(const outcome *told):
    cdef Outcome made = Outcome.__new__(Outcome)
    made.status = _OUTCOMES[told.status]
    made.seq = told.seq if told.has_seq else None
    made.applied = told.applied
    made.last = told.last
    made.durable = told.durable
    made.answer = told.answer
    made.expired = told.expired
    made.source = told.source if told.source != NONE else None
    made.message = ""
    if told.fault.message != NULL and told.fault.message[0] != 0:
        made.message = told.fault.message.decode()
        if told.fault.offset:
            made.message += f" (byte {told.fault.offset})"
    made.rejected = []
    for row in range(<int>min(told.rejected, <uint32_t>OUTCOME_REJECTED)):
        code, message = _REJECTIONS[told.rows[row].rejection]
        made.rejected.append((told.rows[row].index, code, message))
    return made


cdef class Speaker:
    cdef readonly tuple patterns
    cdef tuple texts
    cdef text *rows
    cdef speaker core

    def __cinit__(self, patterns):
        self.patterns = tuple(patterns)
        self.texts = tuple(pattern.encode("utf-8", "surrogateescape") for pattern in patterns)
        self.rows = _texts(list(self.texts))
        self.core.patterns = self.rows
        self.core.count = len(self.texts)

    def __dealloc__(self):
        free(self.rows)


cdef class _Observed:
    """Owns names that an engine looks for."""

    cdef observed core
    cdef double *thresholds
    cdef list texts

    def __cinit__(self, names):
        wanted = {
            name.encode("utf-8", "surrogateescape"): sorted(set(thresholds or ()))
            for name, thresholds in names.items()
        }
        self.texts = sorted(wanted, key=lambda text: (len(text), text))
        cdef size_t at, number = 0
        self.core.names = <observed_name *>malloc(max(len(wanted), 1) * sizeof(observed_name))
        self.thresholds = <double *>malloc(
            max(sum(map(len, wanted.values())), 1) * sizeof(double)
        )
        if self.core.names == NULL or self.thresholds == NULL:
            raise MemoryError
        for at in range(len(self.texts)):
            self.core.names[at].text.bytes = <const char *><bytes>self.texts[at]
            self.core.names[at].text.length = len(self.texts[at])
            self.core.names[at].thresholds = self.thresholds + number
            self.core.names[at].count = len(wanted[self.texts[at]])
            for threshold in wanted[self.texts[at]]:
                self.thresholds[number] = threshold
                number += 1
        self.core.count = len(self.texts)

    def __dealloc__(self):
        free(self.core.names)
        free(self.thresholds)


cdef class _Saved:
    """Owns the bytes of a part of a snapshot."""

    cdef memory held
    cdef msgpack_writer writer

    def __cinit__(self):
        memory_init(&self.held)
        self.writer.memory = &self.held

    def __dealloc__(self):
        msgpack_writer_free(&self.writer)


cdef _array_of(_Saved saved):
    if saved.writer.failed:
        raise MemoryError
    cdef cnp.npy_intp length = saved.writer.length
    array = cnp.PyArray_SimpleNewFromData(1, &length, cnp.NPY_UINT8, saved.writer.bytes)
    cnp.set_array_base(array, saved)
    return array


cdef class _Results:
    """Owns the memory of an array of results, and keeps the engine that it goes back to."""

    cdef Engine engine
    cdef uint32_t partition
    cdef result *rows
    cdef size_t capacity

    def __dealloc__(self):
        if self.rows == NULL:
            return
        with nogil:
            engine_lock(&self.engine.core, self.partition)
            partition_give_results(
                &self.engine.core.partitions[self.partition], self.rows, self.capacity
            )
            engine_unlock(&self.engine.core, self.partition)


cdef class Engine:
    cdef engine core
    cdef bint ready
    cdef readonly uint32_t partitions
    cdef _Observed observed
    cdef dict known_aggtypes
    cdef uint64_t known_version

    def __cinit__(self, *, partitions=30, metrics=None, lateness=5_000_000, limits=None, seed=0):
        if not 1 <= partitions <= 65535:
            raise ValueError(f"partitions is {partitions}; it lies between 1 and 65535")
        given = dict(limits or {})
        for name, limit in given.items():
            if name not in _LIMITS:
                raise ValueError(f"there is no limit {name!r}; there are {', '.join(_LIMITS)}")
            if not 0 <= limit < 2**64:
                raise ValueError(f"the limit of {name} is {limit}; it lies between 0 and 2^64 - 1")
        if engine_init(&self.core, partitions, seed & 0xFFFFFFFFFFFFFFFF, NULL, NULL):
            raise MemoryError
        self.ready = True
        self.partitions = partitions
        self.core.limits.keys = given.get("keys", 2**64 - 1)
        self.core.limits.records = given.get("records", 2**64 - 1)
        self.core.limits.bytes = given.get("bytes", 2**64 - 1)
        self.core.limits.results = given.get("results", 0)
        self.core.limits.source_records = given.get("source_records", 2**64 - 1)
        self.core.limits.source_bytes = given.get("source_bytes", 2**64 - 1)
        self.core.source_limit = given.get("sources", 2**64 - 1)
        self.core.aggtype_limit = given.get("aggtypes", 65536)
        self.core.batch_bytes = min(given.get("batch_bytes", 2**32 - 1), 2**32 - 1)
        self.configure(metrics or {}, lateness)

    def __dealloc__(self):
        if self.ready:
            engine_free(&self.core)

    cdef moment _moment(self, now, steady) except *:
        cdef moment made
        for time in (now, steady):
            if time is not None and not 0 <= time <= _LAST_TIME:
                raise ValueError(f"a time is {time}; it is microseconds since the Unix epoch")
        made.wall = now
        made.steady = now if steady is None else steady
        return made

    cdef _check_partition(self, number):
        if not 0 <= number < self.partitions:
            raise ValueError(f"partition {number}: there are {self.partitions}, from 0 on")

    def configure(self, metrics, lateness):
        cdef uint32_t count = len(metrics)
        cdef uint64_t lateness_ms
        cdef int status
        if not 0 <= lateness <= 3_600_000_000:
            raise ValueError(f"lateness is {lateness}; it lies between 0 and an hour of us")
        if count > 4096:
            raise ValueError(f"there are {count} metrics; at most 4096 can be configured")
        lateness_ms = lateness // 1000
        cdef metric *rows = <metric *>malloc(max(count, 1) * sizeof(metric))
        if rows == NULL:
            raise MemoryError
        try:
            memset(rows, 0, count * sizeof(metric))
            for at, (name, algorithms) in enumerate(metrics.items()):
                _set_metric(&rows[at], name, algorithms)
            with nogil:
                status = engine_configure(&self.core, rows, count, lateness_ms)
        finally:
            free(rows)
        if status:
            raise MemoryError

    def apply(self, bytes batch not None, now, steady=None, Speaker speaker=None):
        cdef outcome told
        cdef message one
        cdef moment time = self._moment(now, steady)
        one.bytes = PyBytes_AS_STRING(batch)
        one.length = PyBytes_GET_SIZE(batch)
        one.speaker = NULL if speaker is None else &speaker.core
        with nogil:
            engine_apply(&self.core, &one, 1, time, &told)
        return _outcome(&told)

    def apply_many(self, list batches not None, now, steady=None, speakers=None):
        cdef message messages[AT_ONCE]
        cdef outcome *told
        cdef Py_ssize_t count, at, first = 0
        cdef moment time = self._moment(now, steady)
        cdef list answers = []
        cdef tuple held = tuple(batches)  # nobody can take a message away meanwhile
        cdef tuple spoken = None if speakers is None else tuple(speakers)
        if spoken is not None and len(spoken) != len(held):
            raise ValueError(f"{len(held)} batches have {len(spoken)} speakers")
        told = <outcome *>malloc(AT_ONCE * sizeof(outcome))
        if told == NULL:
            raise MemoryError
        try:
            while first < len(held):
                count = min(len(held) - first, AT_ONCE)
                for at in range(count):
                    batch = held[first + at]
                    if type(batch) is not bytes:
                        raise TypeError(f"a batch is bytes, not {type(batch).__name__}")
                    messages[at].bytes = PyBytes_AS_STRING(batch)
                    messages[at].length = PyBytes_GET_SIZE(batch)
                    messages[at].speaker = NULL
                    if spoken is not None and spoken[first + at] is not None:
                        messages[at].speaker = &(<Speaker?>spoken[first + at]).core
                with nogil:
                    engine_apply(&self.core, messages, count, time, told)
                for at in range(count):
                    if told[at].answer or told[at].rejected or told[at].status != OUTCOME_APPLIED:
                        answers.append(_outcome(&told[at]))
                    else:
                        answers.append(None)
                first += count
        finally:
            free(told)
        return answers

    def advance(self, partition, now, steady=None):
        self._check_partition(partition)
        cdef uint32_t number = partition
        cdef moment time = self._moment(now, steady)
        cdef uint64_t closed
        with nogil:
            closed = engine_advance(&self.core, number, time)
        return closed

    def expire(self, uint64_t steady, uint64_t timeout):
        cdef msgpack_writer writer
        _open_writer(&writer, &self.core)
        with nogil:
            engine_expire(&self.core, steady, timeout, &writer)
        return decode(_close_writer(&writer))

    def untold(self, uint64_t steady, uint64_t quiet):
        cdef msgpack_writer writer
        _open_writer(&writer, &self.core)
        with nogil:
            engine_untold(&self.core, steady, quiet, &writer)
        return [tuple(row) for row in decode(_close_writer(&writer))]

    def begin_save(self):
        cdef bint begun
        with nogil:
            begun = engine_begin_save(&self.core)
        return begun

    def save_partition(self, partition, now, steady=None):
        self._check_partition(partition)
        cdef uint32_t number = partition
        cdef moment time = self._moment(now, steady)
        cdef _Saved saved = _Saved.__new__(_Saved)
        with nogil:
            engine_save_partition(&self.core, number, time, &saved.writer)
        return _array_of(saved)

    def save_head(self, now, steady=None):
        cdef moment time = self._moment(now, steady)
        cdef _Saved saved = _Saved.__new__(_Saved)
        with nogil:
            engine_save_head(&self.core, time, &saved.writer)
        return _array_of(saved)

    def end_save(self, bint durable):
        with nogil:
            engine_end_save(&self.core, durable)

    def restore(self, head, partitions, now, steady=None):
        cdef moment time = self._moment(now, steady)
        cdef batch_fault fault
        cdef restore_status status
        cdef const uint8_t[::1] body = head
        cdef size_t length = len(body)
        memset(&fault, 0, sizeof(fault))
        with nogil:
            status = engine_restore_head(
                &self.core, &body[0] if length else NULL, length, time, &fault
            )
        _check_restored("the head", status, &fault)
        for number, part in enumerate(partitions):
            body = part
            length = len(body)
            with nogil:
                status = engine_restore_partition(
                    &self.core, &body[0] if length else NULL, length, time, &fault
                )
            _check_restored(f"partition {number}", status, &fault)
        with nogil:
            status = engine_restore_end(&self.core, &fault)
        _check_restored("the whole", status, &fault)

    def settle(self, uint64_t steady, uint64_t quiet):
        cdef uint32_t awaited
        with nogil:
            awaited = engine_settle(&self.core, steady, quiet)
        return awaited

    def settle_all(self):
        cdef uint32_t awaited
        with nogil:
            awaited = engine_settle_all(&self.core)
        return awaited

    def read(self, str key not None):
        cdef bytes name = key.encode("utf-8", "surrogateescape")
        cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(name)
        cdef size_t length = len(name)
        cdef msgpack_writer writer
        cdef uint32_t number = hash_partition(text, length, self.partitions)
        cdef bint found
        _open_writer(&writer, &self.core)
        with nogil:
            engine_lock(&self.core, number)
            found = partition_read(&self.core.partitions[number], text, length, &writer)
            engine_unlock(&self.core, number)
        cdef bytes body = _close_writer(&writer)
        return decode_read(body) if found else None

    def record_count(self, str key not None):
        cdef bytes name = key.encode("utf-8", "surrogateescape")
        cdef text wanted = _text(name)
        cdef uint32_t count, number = hash_partition(
            <const uint8_t *>wanted.bytes, wanted.length, self.partitions
        )
        with nogil:
            engine_lock(&self.core, number)
            count = partition_record_count(
                &self.core.partitions[number], wanted.bytes, wanted.length
            )
            engine_unlock(&self.core, number)
        return count

    def keys(self, *, str table="", patterns=(), str match="", str after="", limit=1000):
        cdef key_query query
        cdef key_list found
        if limit < 0:
            raise ValueError(f"limit is {limit}; it is at least 0")
        cdef bytes table_text = table.encode("utf-8", "surrogateescape")
        cdef bytes match_text = match.encode("utf-8", "surrogateescape")
        cdef bytes after_text = after.encode("utf-8", "surrogateescape")
        cdef list texts = [pattern.encode("utf-8", "surrogateescape") for pattern in patterns]
        memset(&query, 0, sizeof(key_query))
        query.table = _text(table_text)
        query.match = _text(match_text)
        query.after = _text(after_text)
        query.limit = limit
        query.pattern_count = len(texts)
        query.patterns = _texts(texts)
        with nogil:
            engine_keys(&self.core, &query, &found)
        free(<void *>query.patterns)
        try:
            if found.failed:
                raise MemoryError
            return [
                PyBytes_FromStringAndSize(found.keys[at].text, found.keys[at].length).decode()
                for at in range(found.count)
            ]
        finally:
            key_list_free(&found)

    def tables(self):
        cdef msgpack_writer writer
        _open_writer(&writer, &self.core)
        with nogil:
            engine_tables(&self.core, &writer)
        counts = {}
        for table, count in decode(_close_writer(&writer)):
            counts[table] = counts.get(table, 0) + count
        return dict(sorted(counts.items()))

    def aggtypes(self):
        cdef msgpack_writer writer
        cdef uint64_t version = self.core.aggtypes_version
        if self.known_aggtypes is None or version != self.known_version:
            _open_writer(&writer, &self.core)
            with nogil:
                engine_aggtypes(&self.core, &writer)
            self.known_aggtypes = dict(decode(_close_writer(&writer)))
            self.known_version = version
        return self.known_aggtypes

    def sources(self):
        cdef msgpack_writer writer
        _open_writer(&writer, &self.core)
        with nogil:
            engine_sources(&self.core, &writer)
        rows = decode(_close_writer(&writer))
        _open_writer(&writer, &self.core)
        with nogil:
            engine_source_records(&self.core, &writer)
        held = {}
        for source, count in decode(_close_writer(&writer)):
            held[source] = held.get(source, 0) + count
        names = ("source", "last_seen", "epoch", "seq", "durable")
        return [
            {
                **dict(zip(names, row)),
                "gone": bool(row[5]),
                "records": held.get(row[0], 0),
            }
            for row in sorted(rows)
        ]

    def watch(self, bint on):
        cdef uint32_t number
        with nogil:
            for number in range(self.partitions):
                engine_lock(&self.core, number)
                partition_watch(&self.core.partitions[number], ANNOUNCED, on)
                engine_unlock(&self.core, number)

    def observe(self, names):
        cdef _Observed wanted = _Observed(names)
        cdef bint on = wanted.core.count > 0
        cdef uint32_t number
        with nogil:
            for number in range(self.partitions):
                engine_lock(&self.core, number)
                partition_observe(&self.core.partitions[number], &wanted.core)
                partition_watch(&self.core.partitions[number], OBSERVED, on)
                engine_unlock(&self.core, number)
        self.observed = wanted  # those of before were looked at until here

    def take_changed(self, partition, prefixes=("",)):
        return self._take(partition, ANNOUNCED, prefixes)

    def take_observed(self, partition, prefixes=("",)):
        return self._take(partition, OBSERVED, prefixes)

    def observed_count(self):
        cdef uint32_t number
        cdef size_t count = 0
        with nogil:
            for number in range(self.partitions):
                engine_lock(&self.core, number)
                count += partition_change_count(&self.core.partitions[number], OBSERVED)
                engine_unlock(&self.core, number)
        return count

    cdef _take(self, partition, unsigned which, prefixes):
        cdef msgpack_writer writer
        self._check_partition(partition)
        cdef uint32_t number = partition
        cdef list texts = [prefix.encode("utf-8", "surrogateescape") for prefix in prefixes]
        cdef text *wanted = _texts(texts)
        cdef size_t count = len(texts)
        _open_writer(&writer, &self.core)
        with nogil:
            engine_lock(&self.core, number)
            partition_take_changes(&self.core.partitions[number], which, wanted, count, &writer)
            engine_unlock(&self.core, number)
        free(wanted)
        return list(dict.fromkeys((key, struct) for key, struct in decode(_close_writer(&writer))))

    def take_results(self, partition):
        self._check_partition(partition)
        cdef uint32_t number = partition
        cdef size_t count = 0, capacity = 0
        cdef result *rows
        with nogil:
            engine_lock(&self.core, number)
            rows = partition_take_results(&self.core.partitions[number], &count, &capacity)
            engine_unlock(&self.core, number)
        cdef _Results owner = _Results.__new__(_Results)
        owner.engine = self
        owner.partition = number
        owner.rows = rows
        owner.capacity = capacity
        cdef cnp.npy_intp length = count * sizeof(result)
        if rows == NULL:
            return np.empty(0, RESULT)
        flat = cnp.PyArray_SimpleNewFromData(1, &length, cnp.NPY_UINT8, rows)
        cnp.set_array_base(flat, owner)
        return flat.view(RESULT)

    def key_name(self, partition, number):
        self._check_partition(partition)
        cdef uint32_t at = partition, id_ = number
        cdef char copy[1024]
        cdef size_t length = 0
        with nogil:
            engine_lock(&self.core, at)
            length = _copy_key(&self.core.partitions[at].keys, id_, copy)
            engine_unlock(&self.core, at)
        if length == 0:
            raise KeyError(f"partition {partition} has no key {number}")
        return PyBytes_FromStringAndSize(copy, length).decode()

    def metric_names(self):
        # Copied under the lock, made into Python's objects outside of it: these may run anything.
        cdef uint32_t count = 0
        cdef metric *rows = NULL
        with nogil:
            engine_lock(&self.core, 0)
            count = self.core.partitions[0].metric_count
            rows = <metric *>malloc(max(count, <uint32_t>1) * sizeof(metric))
            if rows != NULL and count > 0:
                memcpy(rows, self.core.partitions[0].metrics, count * sizeof(metric))
            engine_unlock(&self.core, 0)
        if rows == NULL:
            raise MemoryError
        named = []
        try:
            for at in range(count):
                algorithms = [
                    rows[at].algorithms[of].name.decode() for of in range(rows[at].algorithm_count)
                ]
                named.append((rows[at].name.decode(), tuple(algorithms)))
        finally:
            free(rows)
        return named

    def counters(self):
        cdef engine_counters own
        cdef partition_counters sums
        with nogil:
            own = engine_own_counters(&self.core)
            sums = engine_partition_counters(&self.core)
        counted = {
            "bytes": own.bytes,
            "records": own.records,
            "samples": sums.samples,
            "samples_late": sums.late,
            "periods_closed": sums.closed,
            "proxies_deleted": sums.deleted,
            "results_dropped": sums.results_dropped,
            "changes_dropped": sums.changes_dropped,
            "observed_dropped": sums.observed_dropped,
            "aggtypes_dropped": own.aggtypes_dropped,
        }
        for row, name in enumerate(_OUTCOMES):
            counted[f"batches_{name}"] = own.outcomes[row]
        for row, (code, _) in enumerate(_REJECTIONS[1:], 1):
            counted[f"rejected_{code}"] = own.rejected[row]
        return counted

    def sizes(self):
        cdef uint32_t sources
        with nogil:
            sources = engine_source_count(&self.core)
        return {
            "keys": self.core.limits.held_keys,
            "records": self.core.limits.held_records,
            "series": self.core.limits.held_series,
            "sources": sources,
            "bytes": self.core.memory.used,
        }


cdef _check_restored(str what, restore_status status, const batch_fault *fault):
    if status == RESTORE_NO_MEMORY:
        raise MemoryError
    if status == RESTORE_BROKEN:
        raise ValueError(f"{what}: {fault.message.decode()} (byte {fault.offset})")


cdef size_t _copy_key(const keys *table, uint32_t number, char *copy) noexcept nogil:
    if number >= table.count or table.entries[number] == NULL:
        return 0
    memcpy(copy, table.entries[number].text, table.entries[number].length)
    return table.entries[number].length


cdef void _open_writer(msgpack_writer *writer, engine *core) noexcept:
    memset(writer, 0, sizeof(msgpack_writer))
    writer.memory = &core.memory


cdef bytes _close_writer(msgpack_writer *writer):
    try:
        if writer.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(<char *>writer.bytes, writer.length)
    finally:
        msgpack_writer_free(writer)


cdef text _text(bytes value):
    cdef text made
    made.bytes = PyBytes_AS_STRING(value)
    made.length = PyBytes_GET_SIZE(value)
    return made


cdef text *_texts(list values) except? NULL:
    """Pointers to texts, which the caller keeps; to be freed."""
    cdef text *made = <text *>malloc(max(len(values), 1) * sizeof(text))
    if made == NULL:
        raise MemoryError
    for at, value in enumerate(values):
        made[at] = _text(value)
    return made


cdef _set_metric(metric *row, str name, algorithms):
    cdef bytes spelled = name.encode()
    cdef bytes algorithm_name
    cdef algorithm *one
    if not 0 < len(spelled) < METRIC_NAME:
        raise ValueError(f"{name!r} is no metric: it has 1 to {METRIC_NAME - 1} bytes")
    if not 1 <= len(algorithms) <= ALGORITHMS:
        raise ValueError(f"{name} has {len(algorithms)} algorithms; it has 1 to {ALGORITHMS}")
    memcpy(row.name, PyBytes_AS_STRING(spelled), len(spelled))
    row.name_length = len(spelled)
    row.algorithm_count = len(algorithms)
    for at, (label, timeout, reducer_name, detector_name, alpha) in enumerate(algorithms):
        one = &row.algorithms[at]
        algorithm_name = label.encode()
        if not 0 < len(algorithm_name) < ALGORITHM_NAME:
            raise ValueError(f"{label!r} is no name: it has 1 to {ALGORITHM_NAME - 1} bytes")
        memcpy(one.name, PyBytes_AS_STRING(algorithm_name), len(algorithm_name))
        one.reducer = reducer_named(reducer_name.encode())
        one.detector = detector_named(detector_name.encode())
        if one.reducer == NULL or one.detector == NULL:
            raise ValueError(
                f"{label}: reducer {reducer_name!r} is one of {REDUCERS}, "
                f"detector {detector_name!r} one of {DETECTORS}"
            )
        if not (math.isfinite(alpha) and 0 < alpha <= 1):
            raise ValueError(f"{label}: alpha is {alpha}; it is above 0 and at most 1")
        if not 0 <= timeout <= 65535:
            raise ValueError(f"{label}: timeout is {timeout}; it lies between 0 and 65535 periods")
        one.alpha = alpha
        one.timeout = timeout
    metric_layout(row)
