"""Merged views: one answer from what many sources told of a key, and the filters of a request.

Pure functions of plain values. How values of several sources become one is a table, ``AGGTYPES``;
the protocol (``docs/protocol.md``) has the same table in words. What it leaves open is settled so:

- Nothing depends on arrival. Sources are taken in the order of their names, structs and attributes
  stand in the order of theirs, and whatever is merged keeps the place where it came up first.
- A view has one shape, however many sources there are: ``sum`` leaves out what is no number, and
  ``union`` writes ``source:key``, for a single source too.
- Values that don't fit their aggtype (a sum of texts, lists by one source and maps by another,
  two entries whose ``source:key`` is the same text) are shown as with ``none``: nothing is lost,
  and the rows say who told what. An aggtype that nobody knows is ``none``.
- Two values are one where a reader would call them equal: 1 and 1.0 are, and so are two NaN, and
  maps whose entries stand in another order; 1 and true are not, nor are a text and its bytes. The
  value shown is then the first source's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgpack

from collectord import wire

View = dict[str, dict[str, Any]]
"""``{struct: {attribute: merged value}}``"""

KEY_PATTERNS = 100
"""The most patterns of a ``kfilt``: each of them costs a comparison with every key."""


@dataclass(frozen=True)
class Filters:
    """What of a UVE is wanted; a field that is empty filters nothing.

    A proxy UVE is made by the collector out of all sources. So ``sfilt`` and ``mfilt``, which ask
    for what some of them told, leave it out; ``by_source`` shows it as it is.
    """

    sfilt: str = ""
    """The host of the sources whose values are merged: what stands before the first colon."""
    mfilt: str = ""
    """The rest of the name of these sources, as in ``Compute:contrail-vrouter-agent:0``."""
    cfilt: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Wanted structs, those of proxy UVEs too, to their wanted attributes; none: all of them."""
    kfilt: tuple[str, ...] = ()
    """Patterns of keys, see ``matches``; a key must match one of them."""
    by_source: bool = False
    """Each source's own value in place of the merged one."""

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Filters:
        """The filters of a query. A field that is nil or empty is as good as absent.

        Where a list is meant, one text is a list of that text; commas mean nothing in it, because
        a key may hold some. Raises WireError (``bad_request``).
        """
        by_source = request.get("by_source")
        if by_source is not None and not isinstance(by_source, bool):
            raise _bad_request(f"by_source is {_shown(by_source)}; it is true or false")
        sfilt = _text(request, "sfilt", "the host of a source, as in 'compute-1'")
        if ":" in sfilt:
            raise _bad_request(
                f"sfilt is {_shown(sfilt)}; a host has no colon: what follows it goes into mfilt"
            )
        kfilt = _texts(request, "kfilt", "patterns of keys, as in 'ObjectVNTable:*'")
        if len(kfilt) > KEY_PATTERNS:
            raise _bad_request(f"kfilt has {len(kfilt)} patterns; it has {KEY_PATTERNS} at most")
        return cls(
            sfilt=sfilt,
            mfilt=_text(request, "mfilt", "a source without its host, as in 'Compute:agent:0'"),
            cfilt=_parse_cfilt(_texts(request, "cfilt", "struct or struct:attribute")),
            kfilt=tuple(kfilt),
            by_source=bool(by_source),
        )

    def wants_key(self, key: str) -> bool:
        """Whether ``kfilt`` lets the key through."""
        return not self.kfilt or any(matches(pattern, key) for pattern in self.kfilt)

    def wants_source(self, source: str) -> bool:
        """Whether ``sfilt`` and ``mfilt`` let the source through."""
        host, _, rest = source.partition(":")
        return self.sfilt in ("", host) and self.mfilt in ("", rest)

    def wants_struct(self, struct: str) -> bool:
        """Whether ``cfilt`` lets the struct through, or at least an attribute of it."""
        return not self.cfilt or struct in self.cfilt


_COMPONENT = re.compile(
    r"(?P<struct>[A-Za-z_][A-Za-z0-9_-]*)(:(?P<attribute>[A-Za-z_][A-Za-z0-9_]*))?"
)


def _text(request: Mapping[str, Any], name: str, meaning: str) -> str:
    value = request.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _bad_request(f"{name} is {_shown(value)}; it is a text, {meaning}")
    return value


def _texts(request: Mapping[str, Any], name: str, meaning: str) -> list[str]:
    value = request.get(name)
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise _bad_request(f"{name} is {_shown(value)}; it is a list of {meaning}")
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise _bad_request(
                f"{name}[{index}] is {_shown(text)}; it is one of a list of {meaning}"
            )
    return value


def _parse_cfilt(texts: Iterable[str]) -> dict[str, frozenset[str]]:
    wanted: dict[str, set[str]] = {}
    whole: set[str] = set()
    for text in texts:
        found = _COMPONENT.fullmatch(text)
        if found is None:
            raise _bad_request(
                f"cfilt has {_shown(text)}; write struct or struct:attribute, each its own in a "
                "list, as in 'UveVirtualNetworkAgent:egress_flow_count'"
            )
        attributes = wanted.setdefault(found["struct"], set())
        if found["attribute"] is None:
            whole.add(found["struct"])
        else:
            attributes.add(found["attribute"])
    return {
        struct: frozenset() if struct in whole else frozenset(attributes)
        for struct, attributes in wanted.items()
    }


def _bad_request(message: str) -> wire.WireError:
    return wire.WireError("bad_request", message)


def _shown(value: Any) -> str:
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a map"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def matches(pattern: str, key: str) -> bool:
    """Whether ``pattern`` is the whole of ``key``, with ``*`` for any run of characters.

    Each part between two stars is looked for once, from left to right: that is enough, since the
    first place where it fits leaves the most to those after it, and no pattern makes it slow.
    """
    first, *middle = pattern.split("*")
    if not middle:
        return key == pattern
    last = middle.pop()
    position, end = len(first), len(key) - len(last)
    if position > end or not key.startswith(first) or not key.endswith(last):
        return False
    for part in middle:
        position = key.find(part, position, end)
        if position < 0:
            return False
        position += len(part)
    return True


NO_FILTERS = Filters()


def merge(
    records: Iterable[Sequence[Any]],
    aggtypes: Mapping[str, str],
    proxies: Mapping[str, Mapping[str, Any]],
    filters: Filters = NO_FILTERS,
) -> View:
    """The view of one key.

    ``records`` are ``[struct, source, {attribute: value}]``, one for each struct and source, in
    any order; ``aggtypes`` maps ``<struct>-<attribute>`` to its aggtype (absent: ``none``);
    ``proxies`` maps the names of proxy UVEs to their values. ``filters.kfilt`` is not looked at:
    whoever read the records has chosen the key. A struct of which ``cfilt`` leaves nothing is
    absent. Values are shared with ``records``, and never changed.
    """
    told: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for struct, source, attributes in records:
        if filters.wants_struct(struct) and filters.wants_source(source):
            told.setdefault(struct, []).append((source, attributes))
    view = {struct: _struct_view(struct, rows, aggtypes, filters) for struct, rows in told.items()}
    if not (filters.sfilt or filters.mfilt):
        for struct, attributes in proxies.items():
            if filters.wants_struct(struct):
                wanted = filters.cfilt.get(struct)
                view[struct] = {
                    name: value
                    for name, value in attributes.items()
                    if not wanted or name in wanted
                }
    return {
        struct: view[struct]
        for struct in sorted(view)
        if view[struct] or not filters.cfilt.get(struct)
    }


def _struct_view(
    struct: str,
    told: list[tuple[str, Mapping[str, Any]]],
    aggtypes: Mapping[str, str],
    filters: Filters,
) -> dict[str, Any]:
    wanted = filters.cfilt.get(struct)
    if len(told) == 1 and not filters.by_source:  # as it is mostly
        ((source, attributes),) = told
        return {
            name: attributes[name]
            if (aggtype := aggtypes.get(f"{struct}-{name}")) is None
            else _merged(aggtype, [source], [attributes[name]])
            for name in sorted(attributes.keys() & wanted if wanted else attributes)
        }
    told.sort(key=itemgetter(0))
    columns = _columns(told)
    names = sorted(columns.keys() & wanted if wanted else columns)
    if filters.by_source:
        return {name: dict(zip(*columns[name], strict=True)) for name in names}
    return {
        name: _merged(aggtypes.get(f"{struct}-{name}", "none"), *columns[name]) for name in names
    }


Sources = list[str]
Values = list[Any]


def _columns(
    told: Iterable[tuple[str, Mapping[Any, Any]]],
) -> dict[Any, tuple[Sources, Values]]:
    """The sources and the values of each name, in the order in which they were told."""
    columns: dict[Any, tuple[Sources, Values]] = {}
    for source, attributes in told:
        for name, value in attributes.items():
            column = columns.get(name)
            if column is None:
                columns[name] = ([source], [value])
            else:
                column[0].append(source)
                column[1].append(value)
    return columns


def _merged(aggtype: str, sources: Sources, values: Values) -> Any:
    name, colon, parameter = aggtype.partition(":")
    return AGGTYPES.get(name + colon, _none)(sources, values, parameter)


def _none(sources: Sources, values: Values, _: str = "") -> Any:
    """The value that all agree on, or a row ``[value, source, …]`` for each distinct one."""
    first = values[0]
    if len(values) == 1 or _are_same(values):
        return first
    rows: dict[Hashable, list[Any]] = {}
    for source, value in zip(sources, values, strict=True):
        row = rows.setdefault(_identity(value), [value])
        if len(row) == 1 or row[-1] != source:
            row.append(source)
    return list(rows.values()) if len(rows) > 1 else first


def _sum(sources: Sources, values: Values, _: str) -> Any:
    kinds = _kinds(values)
    if kinds <= _NUMBERS:
        return _total(values)
    if kinds != {dict}:
        return _none(sources, values)
    members: dict[Any, Values] = {}
    for value in values:
        for key, member in value.items():
            if type(member) in _NUMBERS:
                members.setdefault(key, []).append(member)
    return {key: _total(numbers) for key, numbers in members.items()}


def _union(sources: Sources, values: Values, _: str) -> Any:
    kinds = _kinds(values)
    if kinds == {list}:
        distinct: dict[Hashable, Any] = {}
        for value in values:
            for element in value:
                distinct.setdefault(_identity(element), element)
        return list(distinct.values())
    if kinds == {dict}:
        entries = {
            f"{source}:{wire.json_key(key)}": entry
            for source, value in zip(sources, values, strict=True)
            for key, entry in value.items()
        }
        if len(entries) == sum(map(len, values)):
            return entries
    return _none(sources, values)


def _append(sources: Sources, values: Values, _: str) -> Any:
    if _kinds(values) != {list}:
        return _none(sources, values)
    return [row for value in values for row in value]


def _append_by_key(sources: Sources, values: Values, key: str) -> Any:
    """Rows that share ``key`` become one, where the first of them stood; the others stay."""
    if _kinds(values) != {list}:
        return _none(sources, values)
    groups: dict[Hashable, list[tuple[str, Any]]] = {}
    for source, rows in zip(sources, values, strict=True):
        for row in rows:
            has_key = type(row) is dict and key in row
            # A row without the key is a group of its own: no identity is an object.
            group = groups.setdefault(_identity(row[key]) if has_key else object(), [])
            group.append((source, row))
    return [
        group[0][1] if len(group) == 1 else _merged_row(group, key) for group in groups.values()
    ]


def _merged_row(group: list[tuple[str, dict[Any, Any]]], key: str) -> dict[Any, Any]:
    """Numbers are added up; a member that is no number in some row is merged as ``none`` is."""
    columns = _columns(group)
    merged = {
        name: (_total(values) if _kinds(values) <= _NUMBERS else _none(sources, values))
        for name, (sources, values) in columns.items()
    }
    merged[key] = group[0][1][key]
    return merged


AGGTYPES: dict[str, Callable[[Sources, Values, str], Any]] = {
    "none": _none,
    "sum": _sum,
    "union": _union,
    "append": _append,
    "append:": _append_by_key,
}
"""Each aggtype, up to the colon of its parameter, to what merges the values of several sources.

It is given the sources in the order of their names, each one's value, and the parameter.
"""

_NUMBERS = frozenset({int, float})
_SCALARS = frozenset({int, float, bool, str, bytes})


def _kinds(values: Iterable[Any]) -> set[type]:
    return set(map(type, values))


def _are_same(values: Values) -> bool:
    """True only where all values are one; cheap, and right for what sources mostly tell."""
    kinds = _kinds(values)
    if len(kinds) == 1 and kinds <= _SCALARS:
        return values.count(values[0]) == len(values)
    return len(set(map(wire.encode_view, values))) == 1


def _total(numbers: Values) -> int | float:
    """The sum, as a float where msgpack has no integer that large."""
    total: int | float = sum(numbers)
    return total if isinstance(total, float) or _is_wire_integer(total) else float(total)


def _is_wire_integer(number: int | float) -> bool:
    return -(1 << 63) <= number < 1 << 64


def _identity(value: Any) -> Hashable:
    """What two values share that are one value to a reader, and no others do.

    Lists and maps are packed: Python would call ``[1]`` and ``[True]`` equal, and its hash of
    bytes, unlike that of numbers in tuples, can't be foreseen by who wants all to collide.
    """
    if type(value) is int or isinstance(value, (str, bytes)):
        return value
    if isinstance(value, float) and not math.isnan(value):
        return value
    return (wire.encode_view(_canonical(value)),)


def _canonical(value: Any) -> Any:
    """``value`` with whole floats as integers, one NaN, and the entries of maps in one order."""
    if isinstance(value, float):
        if math.isnan(value):
            return math.nan
        return int(value) if value.is_integer() and _is_wire_integer(value) else value
    if isinstance(value, dict):
        if _kinds(value) == {str}:
            return {key: _canonical(value[key]) for key in sorted(value)}
        entries = [(_canonical(key), _canonical(entry)) for key, entry in value.items()]
        return dict(sorted(entries, key=lambda entry: wire.encode_view(entry[0])))
    if isinstance(value, (list, tuple)) and not isinstance(value, msgpack.ExtType):
        return tuple(map(_canonical, value))
    return value
