"""What is asked of alarms on the query socket: ``alarms`` and ``ack``."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from collectord import wire
from collectord.alarms.registry import StaleTokenError, UnknownAlarmError, Wanted
from collectord.requests import Reply, Request, limit_of, part_size, text
from collectord.views import Filters
from collectord.wire import WireError

if TYPE_CHECKING:
    from collectord.alarms.alarms import Alarms

LIMIT = 1_000
"""UVEs of a page, unless something else is asked for."""
GIVE_WAY = 500
"""UVEs that are looked at before others on the loop have their turn."""


async def find(alarms: Alarms, reply_size: int, request: Request) -> Reply:
    """``alarms``: key to what is raised there, in key order."""
    wanted = Wanted(
        tables=_set(request, "tablefilt", _is_table, "tables, as in 'ObjectVNTable'"),
        patterns=Filters.from_request({"kfilt": request.get("kfilt")}).kfilt,
        severities=_set(request, "severity", _is_severity, "0 critical, 1 major, 2 minor"),
        ack=_flag(request, "ackfilt"),
    )
    limit = limit_of(request, "alarms", LIMIT)
    page: dict[str, Any] = {}
    at = last = text(request, "after")
    while True:
        looked = list(itertools.islice(alarms.registry.find(wanted, at), GIVE_WAY))
        for key, found in looked:
            if not found:
                continue
            reply_size -= part_size(key, found)
            if page and (reply_size < 0 or len(page) == limit):
                return {"alarms": page, "next": last}
            page[key] = found
            last = key
        if len(looked) < GIVE_WAY:
            return {"alarms": page}
        at = looked[-1][0]
        await asyncio.sleep(0)


def acknowledge(alarms: Alarms, request: Request) -> Reply:
    """``ack``: somebody has seen that alarm, which is answered as it is now."""
    key, name, token = (text(request, field, required=True) for field in ("key", "type", "token"))
    try:
        return {"alarm": alarms.acknowledge(key, name, token)}
    except UnknownAlarmError as error:
        raise WireError(
            "not_found", f"no alarm {name!r:.200} is raised on {key!r:.1100}"
        ) from error
    except StaleTokenError as error:
        raise WireError(
            "stale_token",
            f"the alarm {name!r:.200} of {key!r:.1100} is not that of this token any more; ask for "
            "it again, and acknowledge what it says now",
        ) from error


def _is_table(value: Any) -> bool:
    return isinstance(value, str)


def _is_severity(value: Any) -> bool:
    return type(value) is int and 0 <= value < len(wire.SEVERITIES)


def _set(
    request: Request, name: str, is_right: Callable[[Any], bool], meaning: str
) -> frozenset[Any]:
    """A field that is one value, or a list of some."""
    value = request.get(name)
    if value is None or value == "":
        return frozenset()
    values = value if isinstance(value, list) else [value]
    if not all(map(is_right, values)):
        raise WireError("bad_request", f"{name} is {value!r:.80}; it is one or a list of {meaning}")
    return frozenset(values)


def _flag(request: Request, name: str) -> bool | None:
    value = request.get(name)
    if value is not None and not isinstance(value, bool):
        raise WireError("bad_request", f"{name} is {value!r:.80}; it is true or false")
    return value
