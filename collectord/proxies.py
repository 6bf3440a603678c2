"""The menu of proxy UVEs: a table of window reducers and detectors, and the names it makes.

A name is read in three parts: ``AggProxy`` + reducer [+ ``Anomaly`` + detector + parameter], as in
``AggProxySum`` and ``AggProxySumAnomalyEWM01``. The numbers themselves are made in ``csrc/``; what
lives here is how they are named, configured and shown.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from collectord import wire
from collectord.engine import ProxyState

PERIOD = wire.PERIOD
TIMEOUT = 1
"""Closed periods without a sample after which a proxy UVE is deleted."""
METRICS = 4096
ALGORITHMS_PER_METRIC = 16

Shape: TypeAlias = "Mapping[str, Shape | None]"
"""The members that a map may have: maps, or None for what has no members."""

REDUCERS = {
    "Sum": "the sum of the samples",
    "Avg": "the mean of the samples",
    "Min": "the least sample",
    "Max": "the greatest sample",
    "Count": "the number of samples",
    "Last": "the sum over the sources of each one's last sample",
}


@dataclass(frozen=True)
class Detector:
    """A row of the table of detectors: how its parameter is named and its state shown."""

    name: str
    parameter: str
    help: str
    value: Callable[[Algorithm, ProxyState], dict[str, Any]]
    shape: Shape
    """What ``value`` makes."""


def _ewm_value(algorithm: Algorithm, state: ProxyState) -> dict[str, Any]:
    return {
        "algo": "EWM",
        "config": algorithm.config,
        "samples": state.samples,
        "metric": state.value,
        "sigma": state.sigma,
        "state": {"mean": f"{state.mean:g}", "stddev": f"{state.stddev:g}"},
    }


DETECTORS = {
    "EWM": Detector(
        name="EWM",
        parameter="alpha",
        help="deviation from an exponentially weighted mean, in exponentially weighted deviations",
        value=_ewm_value,
        shape={
            **dict.fromkeys(("algo", "config", "samples", "metric", "sigma")),
            "state": dict.fromkeys(("mean", "stddev")),
        },
    ),
}


@dataclass(frozen=True)
class Algorithm:
    """One entry of the menu. ``config`` is the detector's parameter as text, "" without one."""

    name: str
    reducer: str
    detector: str
    config: str

    @property
    def alpha(self) -> float:
        """The weight of the newest step, in (0, 1]; 1 without a detector."""
        return float(self.config) if self.config else 1.0

    def specification(self) -> tuple[str, int, str, str, float]:
        """The form that ``Engine`` takes."""
        return (self.name, TIMEOUT, self.reducer, self.detector, self.alpha)


class ProxyListError(ValueError):
    """``errors`` holds a sentence for each thing that is wrong with a ``uve_proxy_list``."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


_NAME = re.compile(
    rf"AggProxy(?P<reducer>{'|'.join(REDUCERS)})"
    rf"(?:Anomaly(?P<detector>{'|'.join(DETECTORS)})(?P<config>[0-9]{{1,12}}))?"
)
_METRIC = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}-[A-Za-z_][A-Za-z0-9_]{0,127}")


@functools.cache
def algorithm(name: str) -> Algorithm:
    """The algorithm of that name. Raises ValueError for one that is not on the menu."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(
            f"unknown algorithm {name!r}; the menu is AggProxy{{{','.join(REDUCERS)}}}, each alone "
            "or followed by AnomalyEWM and alpha without its point, as in AggProxySumAnomalyEWM01"
        )
    digits = found["config"]
    config = digits[0] + ("." + digits[1:] if digits[1:] else "") if digits else ""
    if digits and not 0.0 < float(config) <= 1.0:
        raise ValueError(
            f"algorithm {name!r} has alpha {config}; alpha is above 0 and at most 1, written "
            "without its point: 01 is 0.1"
        )
    return Algorithm(name, found["reducer"], found["detector"] or "", config)


def parse_struct_name(name: str) -> tuple[str, Algorithm]:
    """The metric and the algorithm of a proxy UVE's struct, which has a dash in its name.

    Raises ValueError where no proxy UVE can be called so.
    """
    algorithm_name, _, metric = name.partition("-")
    entry = algorithm(algorithm_name)
    if not _METRIC.fullmatch(metric):
        raise ValueError(
            f"{name!r} names no metric; write <algorithm>-<struct>-<attribute>, "
            "as in AggProxySum-UveVirtualNetworkAgent-egress_flow_count"
        )
    return metric, entry


def parse_proxy_list(text: str) -> dict[str, tuple[Algorithm, ...]]:
    """Read ``DEFAULT.uve_proxy_list``: ``<struct>-<attribute>:<algorithm>[:<algorithm>…] …``.

    A metric that is named twice has the algorithms of both entries. Raises ProxyListError, which
    names every wrong entry at once.
    """
    metrics: dict[str, tuple[Algorithm, ...]] = {}
    errors: list[str] = []
    for entry in text.split():
        metric, *names = entry.split(":")
        if not _METRIC.fullmatch(metric) or not names:
            errors.append(
                f"malformed entry {entry!r}; write <struct>-<attribute>:<algorithm>[:<algorithm>], "
                "as in UveVirtualNetworkAgent-egress_flow_count:AggProxySum"
            )
            continue
        for name in names:
            try:
                wanted = algorithm(name)
            except ValueError as error:
                errors.append(f"{error}, in the entry {entry!r}")
                continue
            have = metrics.get(metric, ())
            metrics[metric] = have if wanted in have else (*have, wanted)
    errors.extend(
        f"{metric!r} has {len(chosen)} algorithms; "
        f"at most {ALGORITHMS_PER_METRIC} can run on one metric"
        for metric, chosen in metrics.items()
        if len(chosen) > ALGORITHMS_PER_METRIC
    )
    if len(metrics) > METRICS:
        errors.append(f"{len(metrics)} metrics are named; at most {METRICS} can be configured")
    if errors:
        raise ProxyListError(errors)
    return metrics


def specifications(
    metrics: Mapping[str, tuple[Algorithm, ...]],
) -> dict[str, list[tuple[str, int, str, str, float]]]:
    """What ``Engine`` wants to know of ``parse_proxy_list``'s answer."""
    return {
        metric: [algorithm.specification() for algorithm in algorithms]
        for metric, algorithms in metrics.items()
    }


def struct_name(state: ProxyState) -> str:
    """The name of a proxy UVE's struct in a view."""
    return f"{state.algorithm}-{state.metric}"


def struct_shape(entry: Algorithm) -> Shape:
    """The members that ``struct_value`` may have with that algorithm."""
    without: Shape = dict.fromkeys(("value", "staging"))
    value = DETECTORS[entry.detector].shape if entry.detector else without
    return {"proxy": None, "deleted": None, "value": value}


def struct_value(state: ProxyState) -> dict[str, Any]:
    """A proxy UVE as a view shows it; its ``value`` is absent until there is one."""
    shown: dict[str, Any] = {"proxy": state.metric, "deleted": False}
    entry = algorithm(state.algorithm)
    if entry.detector:
        if state.value is not None:
            shown["value"] = DETECTORS[entry.detector].value(entry, state)
    else:
        parts = {"value": state.value, "staging": state.staging}
        present = {name: part for name, part in parts.items() if part is not None}
        if present:
            shown["value"] = present
    return shown


def menu() -> list[dict[str, Any]]:
    """What can be configured, for people and programs."""
    entries: list[dict[str, Any]] = []
    for reducer, meaning in REDUCERS.items():
        entry = {"name": f"AggProxy{reducer}", "period": PERIOD, "timeout": TIMEOUT}
        entries.append({**entry, "reducer": reducer, "help": meaning, "parameters": {}})
        entries.extend(
            {
                **entry,
                "name": f"AggProxy{reducer}Anomaly{detector.name}<{detector.parameter}>",
                "reducer": reducer,
                "detector": detector.name,
                "help": f"{meaning}: {detector.help}",
                "parameters": {
                    detector.parameter: "above 0 and at most 1, without its point: 01 is 0.1"
                },
            }
            for detector in DETECTORS.values()
        )
    return entries
