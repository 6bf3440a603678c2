"""A record as it travels: checked, and encoded once and for all. Many at once: ``columns.py``.

What is refused here is what no collector would take. Nothing in here is kept or sent.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from collectord import wire

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEPTH_OF_VALUES = 4
"""A value is inside the maps and arrays of the batch, its records, the record, the attributes."""


class _Packing(threading.local):
    """A packer for each thread: making one takes longer than encoding a record."""

    def __init__(self) -> None:
        self.packer = msgpack.Packer(use_bin_type=True)
        self.pack: Callable[[Any], bytes] = self.packer.pack


packing = _Packing()


def encode_record(
    key: str, struct: str, attributes: Mapping[str, Any] | None, time: int | None
) -> bytes:
    """Encode a record once and for all. Raises ValueError for what a collector would refuse."""
    check_names(key, struct)
    if attributes is not None:
        check_attributes(attributes)
        attributes = dict(attributes)
    if time is not None and (type(time) is not int or not 0 <= time < 1 << 64):
        raise ValueError(f"time {time!r} is not in microseconds since the Unix epoch")
    try:
        return packing.pack(
            (key, struct, attributes) if time is None else (key, struct, attributes, time)
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the record of {key!r:.200} cannot be encoded: {error}") from error


def check_names(key: str, struct: str) -> None:
    """Raises ValueError for names that no collector would take."""
    if (
        not isinstance(key, str)
        or not 0 < key.find(":") < len(key) - 1
        or len(key) > wire.KEY_BYTES
    ):
        raise ValueError(
            f"key {key!r:.200} is not <table>:<name> of at most {wire.KEY_BYTES} bytes, "
            "as in ObjectVNTable:demo:vn1"
        )
    if not key.isascii() and len(key.encode(errors="surrogatepass")) > wire.KEY_BYTES:
        raise ValueError(f"key {key!r:.200} has more than {wire.KEY_BYTES} bytes of UTF-8")
    if not isinstance(struct, str):
        raise ValueError(f"struct {struct!r:.200} is not a text")
    check_name("struct", struct)


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Raises ValueError for what is no map of names, or nested too deep."""
    if not isinstance(attributes, Mapping):
        raise ValueError(f"attributes {attributes!r:.200} are not a map of names to values")
    for name, value in attributes.items():
        check_name("attribute", name)
        if isinstance(value, (dict, list, tuple)):
            _check_depth(name, value, _DEPTH_OF_VALUES + 1)


@functools.lru_cache(maxsize=4096)
def check_name(what: str, name: str) -> None:
    """Raises ValueError for what is no name of a struct or an attribute."""
    if not isinstance(name, str) or len(name) > wire.NAME_BYTES or not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} {name!r:.200} is not a name: letters, digits and _, at most "
            f"{wire.NAME_BYTES} of them, not beginning with a digit"
        )


def _check_depth(name: str, value: Any, depth: int) -> None:
    if depth > wire.NESTING:
        raise ValueError(
            f"attribute {name!r} is nested deeper than "
            f"{wire.NESTING - _DEPTH_OF_VALUES} lists and maps"
        )
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, (dict, list, tuple)):
            _check_depth(name, item, depth + 1)
