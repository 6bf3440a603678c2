"""Operands: dotted paths into a view, and what is found on them.

A path is split at its dots, and each step leads from where the one before it led. At first that is
the view, whose members are structs. ``*`` and ``__value`` lead to every member of a map, ``__key``
to every key of it. Lists are never named in a path: a step at a list is taken at each of its
elements, and ``*`` and ``__value`` lead to the elements themselves. A step at a text is taken in
what the text holds as JSON. Where a path has no step left the value is whole, a list too. Of very
many places that a path leads to the first are looked at, see ``PLACES``.

What compares the values that are found is in ``operations.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from collectord.alarms.operations import held

PATH_CHARACTERS = 1024
PLACES = 10_000
"""The most that a path leads to, however often it ranges. An empty list or map where a path ranges
counts as a place, so that looking for places doesn't take long either."""
VALUES = "*"
"""The step to all values; ``__value`` is another word for it."""
KEYS = "__key"
RANGES = (VALUES, KEYS)
counters: Counter[str] = Counter(alarm_places_cut=0)
"""``alarm_places_cut``: members and elements that were not looked at, as they are beyond
``PLACES``. Those that evaluate on a thread count here, too."""

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
    cut: int = 0
    """How many members and elements beyond ``PLACES`` were not looked at."""


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
        return not self._numbers and not any(step in RANGES for step in self.steps)

    def find(self, view: Mapping[str, Any]) -> Found:
        """What the path leads to in a view. Never raises."""
        return self.find_from(view, 0)

    def find_from(self, value: Any, index: int) -> Found:
        """What the steps from ``index`` on lead to. Never raises."""
        walk = _Walk(self)
        is_ranged = walk.take(value, index, None)
        if walk.cut:
            counters["alarm_places_cut"] += walk.cut
        return Found(walk.places, is_ranged, walk.cut)

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


class _Walk:
    """All that a path leads to, while it is looked for."""

    __slots__ = ("cut", "path", "places", "room")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: list[Place] = []
        self.room = PLACES
        self.cut = 0

    def take(self, value: Any, index: int, trail: Trail, how: object = _NAMED) -> bool:
        """Take the steps from ``index`` on; whether that ranged over anything."""
        path = self.path
        steps = path.steps
        while index < len(steps):
            step = steps[index]
            kind = type(value)
            if kind is dict:
                if step is VALUES or step is KEYS:
                    self._range_over_map(value, index, trail)
                    return True
                trail = (trail, value, how)
                how = _NAMED
                index += 1
                value = value[step] if step in value else path._numbered(value, step, index)
            elif kind is list:
                self._range_over_list(value, index, trail)
                return True
            else:
                value = held(value, MISSING) if kind is str else MISSING
                if value is MISSING:
                    break
        self.places.append(Place(value, trail))
        self.room -= 1
        return False

    def _range_over_map(self, members: dict[Any, Any], index: int, trail: Trail) -> None:
        are_keys = self.path.steps[index] is KEYS
        for position, (key, member) in enumerate(members.items()):
            if not self._has_room(members, position):
                break
            self.take(key if are_keys else member, index + 1, (trail, members, key))
        self.room -= not members

    def _range_over_list(self, elements: list[Any], index: int, trail: Trail) -> None:
        is_used_up = self.path.steps[index] is VALUES
        for position, element in enumerate(elements):
            if not self._has_room(elements, position):
                break
            if is_used_up:
                self.take(element, index + 1, (trail, element, _ELEMENT))
            else:
                self.take(element, index, trail, _NAMED_OF_ELEMENT)
        self.room -= not elements

    def _has_room(self, ranged: Collection[Any], position: int) -> bool:
        if self.room <= 0:
            self.cut += len(ranged) - position
        return self.room > 0
