"""What is wrong with a configuration, in our words and by the path of its field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

ERRORS = 20
"""The most that are told."""

_WRONG = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "model_type": "must be an object",
    "plain": "{text}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} character",
    "string_type": "must be a text",
    "string_unicode": "must be a text that UTF-8 can write",
}
"""pydantic's types of errors in our words, which are followed by what stood there."""


def sentences(errors: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One for each, up to ``ERRORS`` of them, of a value that was to be such a model."""
    for error in errors.errors()[:ERRORS]:
        path = ".".join(_part(str(part)) for part in error["loc"] if part != "[key]")
        subject = f"{path}:" if path else "the configuration"
        kind = error["type"]
        if kind == "missing":
            yield f"{subject} is required"
        elif kind == "extra_forbidden":
            yield f"{subject} is unknown; known are {', '.join(_known(model, error['loc'][:-1]))}"
        elif kind == "too_long":
            most = error["ctx"]["max_length"]
            yield f"{subject} must have at most {most} entries, not {len(error['input'])}"
        elif kind in _WRONG:
            bounds = {
                name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
                for name, bound in error.get("ctx", {}).items()
            }
            text = _WRONG[kind].format_map({"text": error["msg"], **bounds})
            yield f"{subject} {text}, not {_shown(error['input'])}"
        else:
            yield f"{subject} {error['msg']}"
    if errors.error_count() > ERRORS:
        yield f"and {errors.error_count() - ERRORS} more are wrong"


def _part(name: str) -> str:
    return name[:100] if name.isprintable() else json.dumps(name[:100])


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> Iterable[str]:
    """The fields that there may be at that place of a model."""
    kind: Any = model
    for part in place:
        fields = getattr(kind, "model_fields", None)
        kind = fields[part].annotation if fields else get_args(kind)[-1]  # of a list or a dict
        if isinstance(kind, UnionType):  # with None
            kind = get_args(kind)[0]
    known: Iterable[str] = kind.model_fields
    return known


def _shown(value: object) -> str:
    match value:
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case None | bool() | int() | float() | str():
            try:
                text = json.dumps(value)
            except ValueError:  # an integer of more digits than Python writes
                text = "a number of very many digits"
            return text if len(text) <= 80 else f"{text[:76]} …"
    return repr(value)[:80]
