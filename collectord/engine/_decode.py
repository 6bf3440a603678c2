"""Decoding what the core wrote. Values are the bytes that sources sent, which the core checked as
msgpack but not as what Python can hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack


class ProxyState(NamedTuple):
    """One proxy UVE as the engine holds it; ``_core.pyi`` explains the fields."""

    metric: str
    algorithm: str
    value: int | float | None
    staging: int | float | None
    samples: int
    mean: float
    stddev: float
    sigma: float


_OPTIONS: dict[str, Any] = {
    "raw": False,
    "strict_map_key": False,
    "unicode_errors": "surrogateescape",
}
_WHOLE = 2.0**53
"""Up to here a double holds every whole number."""


def decode(body: bytes) -> Any:
    """What the core itself wrote, sources' values not among it."""
    return msgpack.unpackb(body, **_OPTIONS)


def decode_read(body: bytes) -> tuple[list[list[Any]], list[ProxyState]]:
    """``[records, proxies]`` as ``csrc/read.c`` writes them.

    A value that is msgpack but that Python can't hold (a map whose key is a map, a reserved
    extension type) becomes the bytes it came as, and harms no other.
    """
    try:
        records, proxies = decode(body)
    except (ValueError, TypeError, OverflowError):
        records, proxies = _decode_each(body)
    return records, [_proxy(*row) for row in proxies]


def _decode_each(body: bytes) -> tuple[list[list[Any]], list[list[Any]]]:
    unpacker = msgpack.Unpacker(max_buffer_size=0, **_OPTIONS)
    unpacker.feed(body)
    unpacker.read_array_header()
    records = []
    for _ in range(unpacker.read_array_header()):
        unpacker.read_array_header()
        struct, source = unpacker.unpack(), unpacker.unpack()
        attributes = {}
        for _ in range(unpacker.read_map_header()):
            name, start = unpacker.unpack(), unpacker.tell()
            unpacker.skip()
            attributes[name] = _decode_value(body[start : unpacker.tell()])
        records.append([struct, source, attributes])
    proxies: list[list[Any]] = unpacker.unpack()
    return records, proxies


def _decode_value(value: bytes) -> Any:
    try:
        return decode(value)
    except (ValueError, TypeError, OverflowError):
        return value


def _proxy(
    metric: str,
    algorithm: str,
    real: int,
    value: float | None,
    staging: float | None,
    *verdict: Any,
) -> ProxyState:
    return ProxyState(metric, algorithm, _number(value, real), _number(staging, real), *verdict)


def _number(value: float | None, real: int) -> int | float | None:
    """Whole samples have whole sums, as far as a double tells them exactly."""
    if value is None or real or abs(value) > _WHOLE:
        return value
    return int(value)
