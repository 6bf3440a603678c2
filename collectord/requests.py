"""What requests of the query socket have in common: their fields, and replies that come in pages.

The operations themselves are in ``query.py``, and in the rooms that answer some of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

from collectord import wire
from collectord.wire import WireError

Request: TypeAlias = Mapping[str, Any]
Reply: TypeAlias = dict[str, Any]
Operation: TypeAlias = Callable[[Request], Awaitable[Reply]]
"""Answers a request, without ``ok``; raises WireError."""

LARGEST_LIMIT = {
    "find": 10_000,
    "list": 100_000,
    "tables": 100_000,
    "sources": 100_000,
    "alarms": 10_000,
}
"""A page is no larger, whatever its request says; ``next`` leads on."""
LARGEST_PART = 64 << 20
"""What can't be divided, a struct or a UVE of ``find``, may be larger than a page, up to this."""


def text(request: Request, name: str, *, required: bool = False) -> str:
    """A field that is a text, empty where it is absent. Raises WireError (``bad_request``)."""
    value = request.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise WireError("bad_request", f"{name} is {value!r:.80}; it is a text")
    return value


def limit_of(request: Request, operation: str, default: int) -> int:
    """How many rows a page has: what was asked for, as far as a page goes. Raises WireError."""
    value = request.get("limit")
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WireError("bad_request", f"limit is {value!r:.80}; it is a number from 1 on")
    return min(value, LARGEST_LIMIT[operation])


def order(name: str) -> bytes:
    """What names are in order of: their bytes."""
    return name.encode("utf-8", "surrogateescape")


def part_size(name: str, part: Any) -> int:
    """Bytes of what can't be divided. Raises WireError where it is too large for any reply."""
    size = len(wire.encode_view(part)) + len(name)
    if size > LARGEST_PART:
        raise WireError(
            "too_large",
            f"{name!r:.1100} alone is larger than {LARGEST_PART >> 20} MiB; ask for less of it "
            "with sfilt, mfilt or cfilt",
        )
    return size


def page_of(
    rows: Iterable[tuple[str, Any]], after: str, limit: int, size: int
) -> tuple[dict[str, Any], str | None]:
    """The first of ``rows`` (in order) after a name; and the last one's name if there are more.

    At most ``limit`` rows and about ``size`` bytes, but at least one row. Raises WireError.
    """
    page: dict[str, Any] = {}
    first = order(after)
    last = None
    for name, row in rows:
        if after and order(name) <= first:
            continue
        size -= part_size(name, row)
        if page and (size < 0 or len(page) == limit):
            return page, last
        page[name] = row
        last = name
    return page, None


def paged(name: str, rows: Any, last: str | None) -> Reply:
    """The reply with a page; ``last`` is None on the last one."""
    return {name: rows} if last is None else {name: rows, "next": last}
