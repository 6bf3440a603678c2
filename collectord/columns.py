"""Many records of one UVE at once: encoded by numpy, a column at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectord.encoding import check_attributes, check_names, packing

_HEADS = {
    "f4": 0xCA,
    "f8": 0xCB,
    "u1": 0xCC,
    "u2": 0xCD,
    "u4": 0xCE,
    "u8": 0xCF,
    "i1": 0xD0,
    "i2": 0xD1,
    "i4": 0xD2,
    "i8": 0xD3,
}
"""The byte that msgpack puts before a number of that type, which follows big-endian."""
_FALSE = 0xC2


def encode_columns(
    key: str, struct: str, attributes: Mapping[str, Any], times: NDArray[np.integer[Any]]
) -> Columns:
    """Encode a record for each of ``times``; ``rows`` of what is returned gives their bytes.

    Where ``attributes`` holds an array of shape (records,), at any depth, each record has its item;
    everything else is the same in all. Records that differ only in numbers have one layout, so that
    the bytes around the numbers are made once, and the numbers copied in column by column.

    Raises ValueError for what a collector would refuse, and for arrays of another shape or type.
    """
    check_names(key, struct)
    check_attributes(attributes)
    times = np.asarray(times)
    if times.ndim != 1 or times.dtype.kind not in "iu" or (len(times) and int(times.min()) < 0):
        raise ValueError("times are a list of integers, microseconds since the Unix epoch")
    columns = Columns(len(times))
    pack = packing.packer
    columns.extend(pack.pack_array_header(4) + pack.pack(key) + pack.pack(struct))
    try:
        columns.add(dict(attributes))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the records of {key!r:.200} cannot be encoded: {error}") from error
    columns.add(times.astype(np.uint64))
    return columns


class Columns(bytearray):
    """The bytes that all ``records`` have, as many as one has, and the columns that differ."""

    def __init__(self, records: int) -> None:
        self.records = records
        self._columns: list[tuple[int, NDArray[np.uint8]]] = []

    def add(self, value: Any) -> None:
        """A value, which may be or hold columns."""
        if isinstance(value, np.ndarray):
            self._add_column(value)
        elif isinstance(value, dict):
            self += packing.packer.pack_map_header(len(value))
            for name, item in value.items():
                self += packing.pack(name)
                self.add(item)
        elif isinstance(value, (list, tuple)):
            self += packing.packer.pack_array_header(len(value))
            for item in value:
                self.add(item)
        else:
            self += packing.pack(value)

    def _add_column(self, column: NDArray[Any]) -> None:
        if column.shape != (self.records,):
            raise ValueError(f"an array has the shape {column.shape}, the times {self.records}")
        if column.dtype.kind == "b":
            self._columns.append((len(self), (column + np.uint8(_FALSE)).reshape(-1, 1)))
            self.append(_FALSE)
            return
        kind = column.dtype.str[1:]
        if kind not in _HEADS:
            raise ValueError(f"an array has the type {column.dtype}, not one of numbers or bools")
        size = column.dtype.itemsize
        self.append(_HEADS[kind])
        encoded = np.ascontiguousarray(column, column.dtype.newbyteorder(">"))
        self._columns.append((len(self), encoded.view(np.uint8).reshape(-1, size)))
        self += bytes(size)

    def rows(self, first: int, end: int) -> NDArray[np.uint8]:
        """The records from ``first`` to before ``end``, a row of bytes each: (records, bytes)."""
        end = min(end, self.records)
        rows = np.empty((end - first, len(self)), np.uint8)
        rows[:] = np.frombuffer(self, np.uint8)
        for place, column in self._columns:
            rows[:, place : place + column.shape[1]] = column[first:end]
        return rows
