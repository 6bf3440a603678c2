"""The numbers of the reference implementation, through the sockets of a running collector.

``vectors/sum-ewm.json.gz`` is described in ``vectors/README.md``. Its sequences know no timeout:
what is used of each is what comes before its first period without samples.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon import HISTORY, PERIOD, Daemon, until

Sequence = dict[str, Any]

VECTORS = Path(__file__).parent / "vectors" / "sum-ewm.json.gz"
SEQUENCES = json.loads(gzip.decompress(VECTORS.read_bytes()))
STRUCT = "Reference"
RING = 8
"""A sample so many periods later closes a period."""


def alpha_of(sequence: Sequence) -> str:
    """As a view shows it."""
    return f"{float(sequence['detector'].removeprefix('EWM:')):g}"


def lived(sequence: Sequence) -> list[dict[str, Any]]:
    """The periods of a sequence from its first sample to the first period without one."""
    begun = itertools.dropwhile(lambda period: not period["samples_in"], sequence["periods"])
    return list(itertools.takewhile(lambda period: period["samples_in"], begun))


ALPHAS = sorted({alpha_of(sequence) for sequence in SEQUENCES})
NAMES = {alpha: alpha.replace(".", "") for alpha in ALPHAS}
USED = [pytest.param(sequence, id=f"{sequence['id']}") for sequence in SEQUENCES]
PROXY_LIST = " ".join(
    f"{STRUCT}-flows_{name}:AggProxySumAnomalyEWM{name}:AggProxySum" for name in NAMES.values()
)


def struct_names(sequence: Sequence) -> tuple[str, str]:
    name = NAMES[alpha_of(sequence)]
    return (
        f"AggProxySumAnomalyEWM{name}-{STRUCT}-flows_{name}",
        f"AggProxySum-{STRUCT}-flows_{name}",
    )


def records(sequence: Sequence, key: str) -> list[list[list[Any]]]:
    """A list of records for each period."""
    attribute = f"flows_{NAMES[alpha_of(sequence)]}"
    return [
        [
            [key, STRUCT, {attribute: sample}, HISTORY + number * PERIOD + offset]
            for offset, sample in enumerate(period["samples_in"])
        ]
        for number, period in enumerate(lived(sequence))
    ]


def expected(sequence: Sequence, period: dict[str, Any]) -> dict[str, Any]:
    """The proxy UVE that stands after a period of the reference; without a value before it has."""
    _, sum_name = struct_names(sequence)
    proxy = {"proxy": sum_name.removeprefix("AggProxySum-"), "deleted": False}
    if not period["reported"]:
        return proxy
    value = {
        "algo": "EWM",
        "config": alpha_of(sequence),
        "samples": period["steps"],
        "metric": period["sum"],
        "sigma": period["sigma"],
        "state": {"mean": period["mean_text"], "stddev": period["stddev_text"]},
    }
    return {**proxy, "value": value}


@pytest.fixture(scope="module")
def by_ring() -> Iterator[Daemon]:
    """Periods close only when a sample of 8 periods later comes."""
    arguments = (f"--DEFAULT.uve_proxy_list={PROXY_LIST}", "--DEFAULT.uve_proxy_lateness=300")
    with Daemon(*arguments) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def by_clock() -> Iterator[Daemon]:
    """Periods of long ago close soon after their samples came; those of all sequences have come."""
    arguments = (f"--DEFAULT.uve_proxy_list={PROXY_LIST}", "--DEFAULT.uve_proxy_lateness=0.2")
    with Daemon(*arguments) as daemon, daemon.source() as source:
        for sequence in SEQUENCES:
            source.tell(*itertools.chain(*records(sequence, f"Clock:{sequence['id']}")))
        yield daemon


def test_the_sequences_are_there() -> None:
    assert len(SEQUENCES) == 86
    assert ALPHAS == ["0.001", "0.07", "0.1", "0.2", "0.3", "0.33", "0.9", "1"]
    assert sum(len(lived(sequence)) for sequence in SEQUENCES) > 3000


@pytest.mark.parametrize("sequence", USED)
def test_history_closed_by_later_samples(by_ring: Daemon, sequence: Sequence) -> None:
    key = f"Ring:{sequence['id']}"
    periods, rows = lived(sequence), records(sequence, key)
    ewm, _ = struct_names(sequence)
    with by_ring.source() as source:
        source.tell(*itertools.chain(*rows))
        for back in range(min(RING, len(periods)) - 1, -1, -1):
            # As many periods are closed as the last sample is RING periods after.
            later = [*rows[-1][0][:3], HISTORY + (len(periods) + RING - 1 - back) * PERIOD]
            source.tell(later)
            assert by_ring.uve(key)[ewm] == expected(sequence, periods[-1 - back])


@pytest.mark.parametrize("sequence", USED)
def test_history_closed_by_the_clock(by_clock: Daemon, sequence: Sequence) -> None:
    key = f"Clock:{sequence['id']}"
    periods = lived(sequence)
    ewm, total = struct_names(sequence)

    until(lambda: by_clock.uve(key)[total]["value"].keys() == {"value"})

    view = by_clock.uve(key)
    assert view[total]["value"] == {"value": periods[-1]["sum"]}
    assert view[ewm] == expected(sequence, periods[-1])


@pytest.mark.parametrize("sequence", USED[::8])
def test_history_of_three_sources_within_the_ring(by_clock: Daemon, sequence: Sequence) -> None:
    key = f"Sources:{sequence['id']}"
    rows = records(sequence, key)
    ewm, total = struct_names(sequence)
    with by_clock.source() as one, by_clock.source() as two, by_clock.source() as three:
        for start in range(0, len(rows), RING - 1):
            chunk = list(itertools.chain(*rows[start : start + RING - 1]))
            for number, source in enumerate((one, two, three)):
                source.post(source.batch(*chunk[number::3]))
                source.settle()

        until(lambda: by_clock.uve(key)[total]["value"].keys() == {"value"})

    assert by_clock.uve(key)[ewm] == expected(sequence, lived(sequence)[-1])
