"""What is wrong with JSON that people write: the words, and how what stood there is shown.

Where it stood is told by those who read it: ``alarms/rules_errors.py`` and
``netops/configuration_errors.py``.
"""

from __future__ import annotations

import json

WRONG = {
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "model_type": "must be an object",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} character",
    "string_type": "must be a text",
    "string_unicode": "must be a text that UTF-8 can write",
}
"""pydantic's types of errors in our words, which are followed by what stood there."""


def shown(value: object) -> str:
    """What stood there, on one short line."""
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


def part(name: str) -> str:
    """A name as a part of a place, on the same line and not too long."""
    return name[:100] if name.isprintable() else json.dumps(name[:100])
