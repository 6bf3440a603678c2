"""Records as people write them: lines of JSON, and the words of a command line.

Only their form is read here; whether names and values may be what they are is for ``publish``.
Whatever cannot be read raises ValueError, which says what could.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any


def from_line(line: str, time: int | None) -> tuple[Any, ...]:
    """The key, struct, attributes and time of a line of JSON; ``time`` where it tells none."""
    match _json(line):
        case [key, struct, attributes]:
            return key, struct, attributes, time
        case [key, struct, attributes, own_time]:
            return key, struct, attributes, own_time
        case {"key": key, "struct": struct, "attributes": attributes, **rest} if rest.keys() <= {
            "time"
        }:
            return key, struct, attributes, rest.get("time", time)
    raise ValueError(
        "a record is [key, struct, {attribute: value}] or, with these names, "
        '{"key", "struct", "attributes"}, each with a "time" if you like'
    )


def assignment(text: str) -> tuple[str, Any]:
    """The attribute and the value of ``ATTRIBUTE=VALUE``: JSON if it can be read so, else text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not ATTRIBUTE=VALUE")
    try:
        return name, _json(value)
    except ValueError:
        return name, value


def aggtypes(texts: Iterable[str], struct: str | None) -> dict[str, dict[str, str]]:
    """``{struct: {attribute: aggtype}}`` of ``[STRUCT-]ATTRIBUTE=AGGTYPE``."""
    read: dict[str, dict[str, str]] = {}
    for text in texts:
        found = re.fullmatch(r"(?:(?P<struct>\w+)-)?(?P<attribute>\w+)=(?P<aggtype>\S+)", text)
        owner = found and (found["struct"] or struct)
        if not found or not owner:
            raise ValueError(
                f"--aggtype {text}: write [STRUCT-]ATTRIBUTE=AGGTYPE, as in egress_flow_count=sum; "
                "the struct may be left out where there is one on the command line"
            )
        read.setdefault(owner, {})[found["attribute"]] = found["aggtype"]
    return read


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"JSON has no {name}")
