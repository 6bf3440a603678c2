"""The numbers, bit for bit: what the original C++ of the derived statistics answered."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

from collectord.engine import Engine
from collectord.proxies import struct_value

PERIOD = 60_000_000
START = 28_000_000 * PERIOD
REPORTED, QUIET = 1, 2
KEY = "ObjectVNTable:default-domain:demo:vn1"
METRIC = "UveVirtualNetworkAgent-egress_flow_count"

# tests/vectors/README.md tells the fields.
SEQUENCES: list[dict[str, Any]] = json.loads(
    gzip.decompress((Path(__file__).parent / "vectors" / "sum-ewm.json.gz").read_bytes())
)


def alpha_text(sequence: dict[str, Any]) -> str:
    return str(sequence["detector"].partition(":")[2])


def algorithm_name(sequence: dict[str, Any]) -> str:
    """``EWM:0.07`` is spelled ``AggProxySumAnomalyEWM007``, ``EWM:1.0`` ``…EWM1``."""
    digits = f"{float(alpha_text(sequence)):.12f}".rstrip("0").replace(".", "")
    return f"AggProxySumAnomalyEWM{digits}"


def engine_of(sequence: dict[str, Any]) -> Engine:
    """One that never deletes, as the sequences were made."""
    alpha = float(alpha_text(sequence))
    return Engine(
        partitions=1,
        metrics={METRIC: [(algorithm_name(sequence), 0, "Sum", "EWM", alpha)]},
        limits={"results": 1000},
    )


def apply_samples(engine: Engine, samples: list[int], time: int) -> None:
    struct, _, attribute = METRIC.partition("-")
    records = [[KEY, struct, {attribute: sample}] for sample in samples]
    batch = {"source": "compute-1", "records": records}
    told = engine.apply(msgpack.packb(batch), time)
    assert (told.status, told.applied) == ("applied", len(samples))


@pytest.fixture(params=SEQUENCES, ids=lambda sequence: f"{sequence['id']}-{sequence['detector']}")
def sequence(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_every_step_is_that_of_the_original(sequence: dict[str, Any]) -> None:
    engine, periods = engine_of(sequence), sequence["periods"]
    for number, period in enumerate(periods):
        apply_samples(engine, period["samples_in"], START + number * PERIOD)
    # All that is still open is closed at once, the empty periods at the end included.
    engine.advance(0, START + (len(periods) + 1) * PERIOD)

    told = [
        {
            "period": row["period"] - START // PERIOD,
            "sum": row["value"],
            "steps": row["samples"],
            "mean": row["mean"],
            "stddev": row["stddev"],
            "sigma": row["sigma"],
            "reported": bool(row["flags"] & REPORTED),
            "quiet": bool(row["flags"] & QUIET),
            "mean_text": f"{row['mean']:g}",
            "stddev_text": f"{row['stddev']:g}",
        }
        for row in engine.take_results(0)
    ]
    numbered = [{"period": number, **period} for number, period in enumerate(periods)]
    steps = [period for period in numbered if "steps" in period]
    assert told == [{name: step[name] for name in told[0]} for step in steps]


def test_a_view_shows_every_step_as_the_original_does(sequence: dict[str, Any]) -> None:
    engine = engine_of(sequence)
    for number, period in enumerate(sequence["periods"]):
        start = START + number * PERIOD
        apply_samples(engine, period["samples_in"], start)
        # The last moment of the next period: late enough for one that stayed empty, too.
        engine.advance(0, start + 2 * PERIOD - 1)
        known = engine.read(KEY)
        if "steps" not in period:
            assert known is None
        else:
            assert known is not None
            (state,) = known[1]
            assert struct_value(state) == view_of(sequence, period)


def view_of(sequence: dict[str, Any], period: dict[str, Any]) -> dict[str, Any]:
    """What the proxy UVE shows after the step of that period."""
    view: dict[str, Any] = {"proxy": METRIC, "deleted": False}
    if period["reported"]:
        view["value"] = {
            "algo": "EWM",
            "config": f"{float(alpha_text(sequence)):.12f}".rstrip("0").removesuffix("."),
            "samples": period["steps"],
            "metric": period["sum"],
            "sigma": period["sigma"],
            "state": {"mean": period["mean_text"], "stddev": period["stddev_text"]},
        }
    return view
