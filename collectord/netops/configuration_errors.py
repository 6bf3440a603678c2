"""What is wrong with a configuration, in our words and by the path of its field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from collectord import json_errors

ERRORS = 20
"""The most that are told."""

_WRONG = json_errors.WRONG | {
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "less_than": "must be below {lt}",
    "list_type": "must be a list",
    "plain": "{text}",
}


def sentences(errors: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One for each, up to ``ERRORS`` of them, of a value that was to be such a model."""
    for error in errors.errors()[:ERRORS]:
        path = ".".join(json_errors.part(str(part)) for part in error["loc"] if part != "[key]")
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
            yield f"{subject} {text}, not {json_errors.shown(error['input'])}"
        else:
            yield f"{subject} {error['msg']}"
    if errors.error_count() > ERRORS:
        yield f"and {errors.error_count() - ERRORS} more are wrong"


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
