"""Operands: dotted paths into a view, and what is found on them.

A path is split at its dots, and each step leads from where the one before it led. At first that is
the view, whose members are structs. ``*`` and ``__value`` lead to every member of a map, ``__key``
to every key of it. Lists are never named in a path: a step at a list is taken at each of its
elements, and ``*`` and ``__value`` lead to the elements themselves. A step at a text is taken in
what the text holds as JSON. Where a path has no step left the value is whole, a list too.

What compares the values that are found is in ``operations.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from collectord.alarms.operations import held

PATH_CHARACTERS = 1024
VALUES = "*"
"""The step to all values; ``__value`` is another word for it."""
KEYS = "__key"
_RANGING = {"*": VALUES, "__value": VALUES, "__key": KEYS}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII)


class _Missing:
    """There is no way to what a path names."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()

_NAMED: Final = object()
_NAMED_OF_ELEMENT: Final = object()
_ELEMENT: Final = object()

Trail: TypeAlias = "tuple[Trail, Any, Any] | None"
"""The way to a place, last step first: where each step was taken, and how.

How is the key of the member where it ranged over a map. It is ``_ELEMENT`` where ``*`` ranged over
a list: then the step was taken at the element; ``_NAMED`` where the step is a member's name, and
``_NAMED_OF_ELEMENT`` where that is a member of a list's element.
"""


class Place(NamedTuple):
    """Something that a path leads to."""

    value: Any
    """None where only the last step is missing in a map, ``MISSING`` where the way is."""
    trail: Trail


class Found(NamedTuple):
    """All that a path leads to; exactly one place where it didn't range over anything."""

    places: list[Place]
    is_ranged: bool


class Path:
    """A path, read once."""

    __slots__ = ("_numbers", "steps", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError: what is wrong, beginning with a verb."""
        steps = text.split(".")
        if not all(steps):
            raise ValueError(
                "has an empty step; write names with one dot between them, as in "
                "UveVirtualNetworkAgent.egress_flow_count"
            )
        if len(text) > PATH_CHARACTERS:
            raise ValueError(f"has {len(text)} characters; at most {PATH_CHARACTERS} are taken")
        self.text = text
        self.steps = tuple(_RANGING.get(step, step) for step in steps)
        self._numbers = {step: int(step) for step in steps if _INTEGER.fullmatch(step)}

    def __repr__(self) -> str:
        return f"Path({self.text!r})"

    @property
    def is_plain(self) -> bool:
        """Whether every step names a member, and one whose name can only be a text."""
        return not self._numbers and VALUES not in self.steps and KEYS not in self.steps

    def find(self, view: Mapping[str, Any]) -> Found:
        """What the path leads to in a view. Never raises."""
        return self.find_from(view, 0)

    def find_from(self, value: Any, index: int) -> Found:
        """What the steps from ``index`` on lead to. Never raises."""
        places: list[Place] = []
        is_ranged = _walk(value, self, index, None, places)
        return Found(places, is_ranged)

    def beside(self, operand: Path, place: Place, view: Mapping[str, Any]) -> tuple[Any, int]:
        """Where the path parts from the way of ``operand`` to a place; ``find_from`` goes on there.

        So it leads to the same list element and the same member of a map, as far as the two paths
        have the same steps; ``__key`` and ``*`` lead to the key and the value of the same member.
        """
        shared = self.shared(operand)
        if not shared:
            return view, 0
        if shared == len(operand.steps):
            return place.value, shared
        trail = place.trail
        for _ in range(len(operand.steps) - shared - 1):
            assert trail is not None
            trail = trail[0]
        assert trail is not None
        _, here, how = trail
        if shared == len(self.steps) or how is _ELEMENT or how is _NAMED:
            return here, shared
        step, other = self.steps[shared], operand.steps[shared]
        if how is _NAMED_OF_ELEMENT:
            return here, shared + (step is VALUES)
        if step is KEYS and other is VALUES:
            return how, shared + 1
        if step is VALUES and other is KEYS:
            return here[how], shared + 1
        return here, shared

    def _numbered(self, members: dict[Any, Any], step: str, taken: int) -> Any:
        """The member of a whole number, or what stands for none after so many steps."""
        number = self._numbers.get(step)
        if number is not None and number in members:
            return members[number]
        return MISSING if taken < len(self.steps) else None

    def shared(self, other: Path) -> int:
        """How many steps the two paths have in common, from the first on."""
        count = 0
        for step, another in zip(self.steps, other.steps):  # noqa: B905 - the shorter one ends it
            if step != another:
                break
            count += 1
        return count


def _walk(
    value: Any, path: Path, index: int, trail: Trail, places: list[Place], how: object = _NAMED
) -> bool:
    """Take the steps from ``index`` on; whether that ranged over anything."""
    steps = path.steps
    while index < len(steps):
        step = steps[index]
        kind = type(value)
        if kind is dict:
            if step is VALUES or step is KEYS:
                for key, member in value.items():
                    inner = member if step is VALUES else key
                    _walk(inner, path, index + 1, (trail, value, key), places)
                return True
            trail = (trail, value, how)
            how = _NAMED
            index += 1
            value = value[step] if step in value else path._numbered(value, step, index)
        elif kind is list:
            for element in value:
                if step is VALUES:
                    _walk(element, path, index + 1, (trail, element, _ELEMENT), places)
                else:
                    _walk(element, path, index, trail, places, _NAMED_OF_ELEMENT)
            return True
        else:
            value = held(value, MISSING) if kind is str else MISSING
            if value is MISSING:
                break
    places.append(Place(value, trail))
    return False
