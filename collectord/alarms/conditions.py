"""A condition compiled once: whether it may hold, where it holds, and why it doesn't.

Most conditions don't hold most of the time. So there is ``may_hold``, which only says that, and
fast; ``matching`` and ``rows`` are for the few that do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from collectord.alarms import matches
from collectord.alarms.operations import OPERATIONS, held, looked_into
from collectord.alarms.paths import MISSING, Found, Path, Place
from collectord.alarms.rules import Condition

Match: TypeAlias = "tuple[Place, Place | None]"
"""Where operand1 and operand2 were found; None for an operand2 that is no path."""
Probe: TypeAlias = Callable[[Mapping[str, Any]], bool]


THRESHOLD_OPERATIONS = ("<", "<=", ">", ">=", "range", "==")
"""Which a number enters and leaves where it passes another."""
EXACT = 2**53
"""Below it a double holds every whole number."""


class Explanation(NamedTuple):
    """What became of one condition of a rule in a view."""

    place: str
    """As in ``or_list[0].and_list[1]``."""
    condition: Condition
    operand1: tuple[str, ...]
    """The values that operand1 was found to be, as JSON, and ``missing`` where there is no way to
    one: the first ``matches.MATCHES`` of them."""
    operand2: tuple[str, ...]
    holds: bool
    why: str
    """A sentence without its full stop."""


class CompiledCondition:
    """A condition whose paths and JSON were read."""

    def __init__(self, condition: Condition, place: str) -> None:
        self.condition = condition
        self.place = place
        self.shown = condition.model_dump(mode="json", exclude_none=True)
        """As it is shown with what it found."""
        self._operand1 = Path(condition.operand1)
        other = condition.operand2
        self._operand2 = None if other.uve_attribute is None else Path(other.uve_attribute)
        self._constant = looked_into(held(other.json_value or "null", None))
        self._variables = [Path(text) for text in condition.variables]
        self._operation = OPERATIONS[condition.operation]
        self._is_right = self._operation.against(self._constant)
        self.may_hold = self._probe()
        """False only where the condition doesn't hold in a view. Never raises."""

    def paths(self) -> list[Path]:
        """All paths that it looks at."""
        operands = [self._operand1] if self._operand2 is None else [self._operand1, self._operand2]
        return [*operands, *self._variables]

    def looks(self) -> Iterator[tuple[tuple[str, ...], Sequence[float] | None]]:
        """The steps of each of its paths, and thresholds of what the path leads to: as long as that
        is a number that moves past none of them, nothing changes. None: any change may matter."""
        first, *others = self.paths()
        yield first.steps, self._thresholds()
        for path in others:
            yield path.steps, None

    def _thresholds(self) -> Sequence[float] | None:
        if self._operand2 is not None or self.condition.operation not in THRESHOLD_OPERATIONS:
            return None
        numbers = self._constant if isinstance(self._constant, list) else [self._constant]
        are_exact = all(type(each) in (int, float) and abs(each) < EXACT for each in numbers)
        return numbers if are_exact else None

    def matching(self, view: Mapping[str, Any]) -> list[Match]:
        """Where it holds in a view; empty where it doesn't. Never raises."""
        return self._matching(*self._operands(view))

    def rows(self, view: Mapping[str, Any], matching: list[Match]) -> list[dict[str, Any]]:
        """What was found there, as people see it: the first of many."""
        found: list[dict[str, Any]] = []
        variables = _Variables(self._variables, self._operand1, self._operand2, view)
        for place1, place2 in matching[: matches.MATCHES]:
            row: dict[str, Any] = {"json_operand1_value": matches.json_text(place1.value)}
            if place2 is not None:
                row["json_operand2_value"] = matches.json_text(place2.value)
            row["json_variables"] = variables.texts(place1, place2)
            found.append(row)
        return found

    def explain(self, view: Mapping[str, Any]) -> Explanation:
        """What its operands are in a view, whether it holds, and why or why not."""
        found1, found2 = self._operands(view)
        matching = self._matching(found1, found2)
        values1 = _shown(found1)
        values2 = (matches.json_text(self._constant),) if found2 is None else _shown(found2)
        why = None if matching else self._why_not_compared(view, found1, found2)
        is_cut = found1.cut or (found2 is not None and found2.cut)
        if why is None:
            is_ranged = found1.is_ranged or (found2 is not None and found2.is_ranged)
            places = max(len(found1.places), len(found2.places) if found2 else 1)
            if is_ranged:
                why = f"it holds at {len(matching) or 'none'} of {places} places"
            else:
                why = "it holds" if matching else "it doesn't hold"
        if is_cut:
            why += "; there are more, which are not looked at"
        return Explanation(self.place, self.condition, values1, values2, bool(matching), why)

    def _operands(self, view: Mapping[str, Any]) -> tuple[Found, Found | None]:
        operand2 = self._operand2
        return self._operand1.find(view), None if operand2 is None else operand2.find(view)

    def _matching(self, found1: Found, found2: Found | None) -> list[Match]:
        # A value that is compared with many is looked into once.
        if found2 is None:
            return _against(found1, self._is_right, None)
        if not found2.is_ranged:
            place2 = found2.places[0]
            if place2.value is MISSING:
                return []
            return _against(found1, self._operation.against(looked_into(place2.value)), place2)
        holds = self._operation.holds
        if not found1.is_ranged:
            place1 = found1.places[0]
            if place1.value is MISSING:
                return []
            value1 = looked_into(place1.value)
            return [
                (place1, place2)
                for place2 in found2.places
                if place2.value is not MISSING and holds(value1, looked_into(place2.value))
            ]
        if not _are_equally_many(found1, found2):
            return []
        return [
            (place1, place2)
            for place1, place2 in zip(found1.places, found2.places, strict=True)
            if place1.value is not MISSING
            and place2.value is not MISSING
            and holds(looked_into(place1.value), looked_into(place2.value))
        ]

    def _why_not_compared(
        self, view: Mapping[str, Any], found1: Found, found2: Found | None
    ) -> str | None:
        operands = [("operand1", self._operand1, found1)]
        if self._operand2 is not None and found2 is not None:
            operands.append(("operand2", self._operand2, found2))
        for name, path, found in operands:
            if not found.places:
                return f"{name} ranges over nothing"
            if all(place.value is MISSING for place in found.places):
                return f"there is no way to {name}: {_lacking(view, path)}"
        are_paired = found2 is not None and found1.is_ranged and found2.is_ranged
        if found2 is not None and are_paired and not _are_equally_many(found1, found2):
            return (
                f"operand1 ranges over {_count(found1)} values and operand2 over "
                f"{_count(found2)}, so they can't be paired"
            )
        return None

    def _probe(self) -> Probe:
        operand1, operand2, holds = self._operand1, self._operand2, self._operation.holds
        if not operand1.is_plain or (operand2 is not None and not operand2.is_plain):
            return _always
        if operand2 is not None:
            return _attributes_probe(operand1.steps, operand2.steps, holds)
        native = _NATIVE.get(self.condition.operation)
        if native is not None and type(self._constant) in (int, float):
            return _number_probe(operand1.steps, native, self._is_right, self._constant)
        return _value_probe(operand1.steps, self._is_right)


def _against(found1: Found, is_right: Callable[[Any], bool], place2: Place | None) -> list[Match]:
    return [
        (place1, place2)
        for place1 in found1.places
        if place1.value is not MISSING and is_right(looked_into(place1.value))
    ]


def _are_equally_many(found1: Found, found2: Found) -> bool:
    """Of those that are looked at; where one operand has more of them, the other has to, too."""
    return len(found1.places) == len(found2.places) and bool(found1.cut) == bool(found2.cut)


# --- fast ways of not holding -------------------------------------------------------------------

_NATIVE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_UNKNOWN = object()
"""What may be anything: the way to it leads through a list or a text."""


def _always(_: Mapping[str, Any]) -> bool:
    return True


def _number_probe(
    steps: Sequence[str],
    native: Callable[[Any, Any], bool],
    is_right: Callable[[Any], bool],
    constant: float,
) -> Probe:
    """For a plain path, a threshold and a number: most rules are made of these."""
    *way, last = steps

    def may_hold(view: Mapping[str, Any]) -> bool:
        value: Any = view
        for step in way:
            value = value.get(step)
            if type(value) is not dict:
                return type(value) is list or type(value) is str
        value = value.get(last)
        if type(value) is int or type(value) is float:
            return native(value, constant)
        return is_right(looked_into(value))

    return may_hold


def _value_probe(steps: Sequence[str], is_right: Callable[[Any], bool]) -> Probe:
    """For a plain path and any value."""
    find = _finder(steps)

    def may_hold(view: Mapping[str, Any]) -> bool:
        value = find(view)
        if value is MISSING:
            return False
        return value is _UNKNOWN or is_right(looked_into(value))

    return may_hold


def _attributes_probe(
    steps1: Sequence[str], steps2: Sequence[str], holds: Callable[[Any, Any], bool]
) -> Probe:
    """For two plain paths."""
    find1, find2 = _finder(steps1), _finder(steps2)

    def may_hold(view: Mapping[str, Any]) -> bool:
        value1, value2 = find1(view), find2(view)
        if value1 is MISSING or value2 is MISSING:
            return False
        if value1 is _UNKNOWN or value2 is _UNKNOWN:
            return True
        return holds(looked_into(value1), looked_into(value2))

    return may_hold


def _finder(steps: Sequence[str]) -> Callable[[Mapping[str, Any]], Any]:
    """What a plain path leads to through maps alone; MISSING or _UNKNOWN where that ends."""
    *way, last = steps

    def find(view: Mapping[str, Any]) -> Any:
        value: Any = view
        for step in way:
            value = value.get(step)
            if type(value) is not dict:
                return _UNKNOWN if type(value) is list or type(value) is str else MISSING
        return value.get(last)

    return find


# --- variables ----------------------------------------------------------------------------------


class _Variables:
    """The variables of a condition in one view, at each place where it holds.

    Those of places that share the way to a variable are looked for once.
    """

    def __init__(
        self,
        variables: Sequence[Path],
        operand1: Path,
        operand2: Path | None,
        view: Mapping[str, Any],
    ) -> None:
        self._view = view
        self._found: dict[tuple[str, int, int], tuple[Any, str]] = {}
        self._rows = [
            (
                path,
                operand2
                if operand2 is not None and path.shared(operand2) > path.shared(operand1)
                else operand1,
                operand2,
            )
            for path in variables
        ]

    def texts(self, place1: Place, place2: Place | None) -> dict[str, str]:
        """Each path to what it leads to, as JSON."""
        texts: dict[str, str] = {}
        for path, operand, operand2 in self._rows:
            place = place2 if operand is operand2 and place2 is not None else place1
            start, index = path.beside(operand, place, self._view)
            key = path.text, id(start), index
            if key not in self._found:
                # What was started from is kept, so that nothing else gets its id.
                self._found[key] = start, _variable_text(path.find_from(start, index))
            texts[path.text] = self._found[key][1]
        return texts


def _variable_text(found: Found) -> str:
    values = [place.value for place in found.places if place.value is not MISSING]
    if found.is_ranged:
        return matches.json_text(values[: matches.MATCHES])
    return matches.json_text(values[0] if values else None)


# --- explaining ---------------------------------------------------------------------------------


def _shown(found: Found) -> tuple[str, ...]:
    return tuple(
        "missing" if place.value is MISSING else matches.json_text(place.value)
        for place in found.places[: matches.MATCHES]
    )


def _count(found: Found) -> str:
    return f"more than {len(found.places)}" if found.cut else str(len(found.places))


def _lacking(view: Mapping[str, Any], path: Path) -> str:
    """Where the way ends."""
    names = path.text.split(".")
    for count in range(1, len(names)):
        way = ".".join(names[:count])
        values = [place.value for place in Path(way).find(view).places]
        if all(value is MISSING for value in values):
            return f"{way.rpartition('.')[0]} has no members"
        if all(value is MISSING or value is None for value in values):
            return f"{way} is not there"
    return f"{'.'.join(names[:-1])} has no members"
