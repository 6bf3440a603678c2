"""What is wrong with rules, in our words, each with its place in the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from collectord import json_errors

ERRORS = 100
"""The most that are told."""
REFUSED = "refused"
"""The type of errors whose words are ours already; their context has ``text`` and ``place``."""

_WRONG = json_errors.WRONG | {"int_from_float": "must be a whole number"}


def sentences(
    error: ValidationError, index: int, row: Any, model: type[BaseModel]
) -> Iterator[str]:
    """One for each thing that is wrong with the rule ``row``, which was to be such a model."""
    for found in error.errors():
        place = place_of(index, row)
        for step in found["loc"]:
            place = _inside(place, step)
        kind, context = found["type"], found.get("ctx", {})
        if kind == REFUSED:
            words = context["text"]
            for step in context["place"].split(".") if context["place"] else ():
                place = _inside(place, step)
        elif kind == "missing":
            words = "is required"
        elif kind == "extra_forbidden":
            words = f"is unknown; known are {', '.join(_known(model, found['loc'][:-1]))}"
        elif kind == "too_long":
            words = f"must have at most {context['max_length']} entries, not {len(found['input'])}"
        elif kind in _WRONG:
            words = f"{_WRONG[kind].format_map(context)}, not {json_errors.shown(found['input'])}"
        else:
            words = found["msg"]
        yield f"{place.rstrip()}: {words}"


def place_of(index: int, row: Any) -> str:
    """Where a rule stands, and its name if it has one, with a space behind."""
    name = row.get("name") if isinstance(row, dict) else None
    return (
        f"rules[{index}] ({json_errors.part(name)}) "
        if isinstance(name, str) and name
        else (f"rules[{index}] ")
    )


def limited(errors: list[str]) -> list[str]:
    """As many as people can read."""
    rest = len(errors) - ERRORS
    return errors if rest <= 0 else [*errors[:ERRORS], f"and {rest} more are wrong"]


def no_json(error: Exception) -> str:
    """Why a text is no JSON."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, RecursionError):
        return "not JSON that can be read: it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"not JSON: byte {error.start} is not UTF-8"
    return f"not JSON that can be read: {error}"


# --- names that are written twice ---------------------------------------------------------------


class _Repeated(dict[str, Any]):
    """An object of JSON in which ``names`` are written twice."""

    names: list[str]


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, for ``json.loads``; ``repeated`` finds what is twice in it."""
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: set[str] = set()
    twice = _Repeated(value)
    twice.names = [name for name, _ in pairs if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    return twice


def repeated(value: Any, place: str) -> Iterator[str]:
    """A sentence for each name that is written twice in an object."""
    waiting = [(value, place)]
    while waiting:
        value, place = waiting.pop()
        if isinstance(value, _Repeated):
            for name in value.names:
                yield f"{place.rstrip()}: {json_errors.part(name)!r} is written twice"
        if isinstance(value, dict):
            waiting += [(member, _inside(place, name)) for name, member in value.items()]
        elif isinstance(value, list):
            waiting += [(member, _inside(place, index)) for index, member in enumerate(value)]


# --- places -------------------------------------------------------------------------------------


def _inside(place: str, step: int | str) -> str:
    """The place of a member or an element."""
    if isinstance(step, int):
        return f"{place.rstrip()}[{step}]"
    if step == "[key]":  # of a member whose name is wrong; the name stands there already
        return place
    name = json_errors.part(step)
    return f"{place}{name}" if place.endswith(" ") else f"{place}.{name}"


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> Iterable[str]:
    """The fields that there may be at that place of a model."""
    kind: Any = model
    for step in place:
        is_list = isinstance(step, int)
        kind = get_args(kind)[0] if is_list else kind.model_fields[step].annotation
        while get_origin(kind) in (Annotated, Union, UnionType):
            kind = get_args(kind)[0]
    known: Iterable[str] = kind.model_fields
    return known
