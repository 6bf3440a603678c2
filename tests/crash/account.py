"""What was told, in the plainest form, and the views that must come of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PERIOD = 60_000_000
"""Microseconds."""
RING = 8
"""A sample closes the periods so many before its own, and all older ones."""
STRUCT = "UveLink"
METRIC = f"{STRUCT}-flows"
SAMPLED = "flows"
SUM, COUNT, EWM = (
    f"{name}-{METRIC}" for name in ("AggProxySum", "AggProxyCount", "AggProxySumAnomalyEWM01")
)
PROXY_LIST = f"{METRIC}:AggProxySum:AggProxyCount:AggProxySumAnomalyEWM01"
ALPHA = 0.1
STEPS = 10
"""From this step on the detector has a value."""
AGGTYPES = {STRUCT: {"load": "sum", "peers": "union"}}
Record = Sequence[Any]
"""``[key, struct, attributes, time]``."""


@dataclass
class Period:
    """The samples of one period of a key: how many, and what they add up to."""

    count: int = 0
    total: float = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value


@dataclass(frozen=True)
class Difference:
    """Something that the collector tells otherwise: ``lost``, ``twice``, or just ``wrong``."""

    kind: str
    key: str
    what: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.kind}: {self.key} {self.what}: {self.expected!r} is {self.found!r}"


class Account:
    """Every record and every sample, each once, as it was handed to a publisher."""

    def __init__(self) -> None:
        self.structs: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
        """``{key: {struct: {source: {attribute: value}}}}``."""
        self.periods: dict[str, dict[int, Period]] = {}
        self.records = 0

    def take(self, source: str, records: Sequence[Record]) -> None:
        """Records that were told, in their order."""
        for key, struct, attributes, time in records:
            self.records += 1
            sources = self.structs.setdefault(key, {}).setdefault(struct, {})
            if attributes is None:
                sources.pop(source, None)
                continue
            held = sources.setdefault(source, {})
            held.update(attributes)
            for name in [name for name, value in held.items() if value is None]:
                del held[name]
            if not held:
                del sources[source]
            sample = attributes.get(SAMPLED) if struct == STRUCT else None
            if sample is not None:
                periods = self.periods.setdefault(key, {})
                periods.setdefault(time // PERIOD, Period()).add(sample)

    def told_keys(self) -> list[str]:
        """The keys that must have a view."""
        return sorted({*self.periods, *(key for key in self.structs if any(self._held(key)))})

    def closed(self, key: str) -> list[int]:
        """The periods with samples that the ring has closed, in order."""
        periods = self.periods.get(key, {})
        return sorted(number for number in periods if number <= max(periods) - RING)

    def view(self, key: str, *, by_source: bool) -> dict[str, dict[str, Any]]:
        """The view of a key, with its proxy UVEs."""
        shown: dict[str, dict[str, Any]] = {}
        for struct, sources in self._held(key):
            values: dict[str, dict[str, Any]] = {}
            for source in sorted(sources, key=str.encode):
                for name, value in sources[source].items():
                    values.setdefault(name, {})[source] = value
            types = AGGTYPES.get(struct, {})
            shown[struct] = {
                name: told if by_source else merged(types.get(name, "none"), told)
                for name, told in values.items()
            }
        return shown | self._proxies(key)

    def _held(self, key: str) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
        return ((struct, told) for struct, told in self.structs.get(key, {}).items() if told)

    def _proxies(self, key: str) -> dict[str, dict[str, Any]]:
        """An empty period ends a proxy UVE (timeout 1): only the last unbroken run counts."""
        periods = self.periods.get(key)
        if not periods:
            return {}
        newest = max(periods)
        first = last = newest - RING
        while first in periods:
            first -= 1
        run = [periods[number] for number in range(first + 1, last + 1)]
        sums: dict[str, Any] = {"staging": periods[newest].total}
        counts: dict[str, Any] = {"staging": periods[newest].count}
        if run:
            sums["value"] = run[-1].total
            counts["value"] = run[-1].count
        shown: dict[str, dict[str, Any]] = {
            name: {"proxy": METRIC, "deleted": False} for name in (SUM, COUNT, EWM)
        }
        shown[SUM]["value"] = sums
        shown[COUNT]["value"] = counts
        if len(run) >= STEPS:
            shown[EWM]["value"] = detector([period.total for period in run])
        return shown


def merged(aggtype: str, told: Mapping[str, Any]) -> Any:
    """One value of those that sources told; they stand in the order of their names."""
    values = list(told.values())
    if aggtype == "sum":
        return sum(values)
    if aggtype == "union":
        return list(dict.fromkeys(element for value in values for element in value))
    rows: list[list[Any]] = []
    for source, value in told.items():
        row = next((row for row in rows if row[0] == value), None)
        if row is None:
            rows.append([value, source])
        else:
            row.append(source)
    return rows[0][0] if len(rows) == 1 else rows


def detector(sums: Sequence[float]) -> dict[str, Any]:
    """What ``AggProxySumAnomalyEWM01`` shows after these periods."""
    mean = variance = stddev = 0.0
    for total in sums:
        variance = (1 - ALPHA) * (variance + ALPHA * (total - mean) ** 2)
        mean = (1 - ALPHA) * mean + ALPHA * total
        stddev = math.sqrt(variance)
    return {
        "algo": "EWM",
        "config": "0.1",
        "samples": len(sums),
        "metric": sums[-1],
        "sigma": (sums[-1] - mean) / stddev if stddev else 0.0,
        "state": {"mean": f"{mean:g}", "stddev": f"{stddev:g}"},
    }


def differences(account: Account, views: Mapping[str, Any], *, by_source: bool) -> list[Difference]:
    """What the views of all keys tell otherwise than the account."""
    found: list[Difference] = []
    for key in account.told_keys():
        told = views.get(key)
        if told is None:
            found.append(
                Difference("lost", key, "view", account.view(key, by_source=by_source), None)
            )
            continue
        expected = account.view(key, by_source=by_source)
        for struct in sorted({*expected, *told}):
            found += _compare(key, struct, expected.get(struct), told.get(struct))
    found += [
        Difference("wrong", key, "view", None, views[key])
        for key in sorted(views.keys() - set(account.told_keys()))
    ]
    return found


def _compare(key: str, struct: str, expected: Any, told: Any) -> list[Difference]:
    if _same(expected, told):
        return []
    if struct not in (SUM, COUNT, EWM):
        # The last thing told stands: whatever else does is older, or was to be removed.
        return [Difference("lost", key, struct, expected, told)]
    kind = "wrong"
    if struct == COUNT and expected and told:
        kinds = {
            "lost" if counted < right else "twice"
            for name, right in expected["value"].items()
            if (counted := told.get("value", {}).get(name, 0)) != right
        }
        kind = " and ".join(sorted(kinds)) or "wrong"
    return [Difference(kind, key, struct, expected, told)]


def _same(expected: Any, told: Any) -> bool:
    if isinstance(expected, dict) and isinstance(told, dict):
        return expected.keys() == told.keys() and all(
            _same(value, told[name])
            if name != "sigma"
            else math.isclose(value, told[name], rel_tol=1e-9, abs_tol=1e-9)
            for name, value in expected.items()
        )
    return bool(expected == told) and isinstance(expected, bool) == isinstance(told, bool)
