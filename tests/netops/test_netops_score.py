"""A score: what a real collector said of every period, and what is made of it."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from collectord import proxies
from collectord.ctl_common import UsageError
from collectord.netops import command, measures, score_command
from collectord.netops.block import SECOND, Block, Report, Stream
from collectord.netops.devices import DeviceSimulation
from collectord.netops.recording import START, Recording, RecordingError, record
from collectord.netops.score import Result, bound, is_flagged, last_value, score
from collectord.netops.score_command import as_json, conclusion, render
from netops.drawing import network
from netops.simulated import Counting

INTERVAL = 10.0
MINUTE = 6
"""Steps of it."""
PERIODS = 40
SCENARIO = {"cpu_utilization": 0, "throughput": 3, "length": 9}
SMALL = network(devices=2, sites=2, error_rate=0.02, error_scenarios=[SCENARIO], interval=INTERVAL)
"""Four devices, each of which fails every ten minutes or so."""
ALGORITHMS = ("AggProxySumAnomalyEWM01", "AggProxyMaxAnomalyEWM03")
HISTORY = PERIODS * 60.0


def algorithms(*names: str) -> list[proxies.Algorithm]:
    return [proxies.algorithm(name) for name in names]


def plain_sigmas(values: Iterable[float], alpha: float) -> list[float]:
    """What protocol.md says, step by step, from the first one on."""
    mean = variance = 0.0
    sigmas = []
    for value in values:
        variance = (1 - alpha) * (variance + alpha * (value - mean) ** 2)
        mean = (1 - alpha) * mean + alpha * value
        deviation = math.sqrt(variance)
        sigmas.append((value - mean) / deviation if deviation else 0.0)
    return sigmas


def recorded(struct: str) -> Recording:
    return record(DeviceSimulation(SMALL), struct, algorithms(*ALGORITHMS), PERIODS, INTERVAL)


@pytest.fixture(scope="module")
def devices() -> Recording:
    return recorded("UveDevice")


@pytest.fixture(scope="module")
def result() -> Result:
    return score(SMALL, algorithms=ALGORITHMS, thresholds=(1.0, 3.0), history=HISTORY)


@pytest.fixture(scope="module")
def drawn() -> Block:
    return Stream(DeviceSimulation(SMALL), START, INTERVAL).take(PERIODS * MINUTE)


# ---- recording


def test_every_period_of_every_series_is_recorded(devices: Recording, drawn: Block) -> None:
    emitters = DeviceSimulation(SMALL).emitters
    assert devices.series == [
        (f"ObjectDevice:{emitter.id}", metric) for emitter in emitters for metric in drawn.values
    ]
    by_period = np.stack(list(drawn.values.values()), axis=1).reshape(-1, PERIODS, MINUTE)
    sums = devices.values["AggProxySumAnomalyEWM01"]
    np.testing.assert_allclose(sums[:, 9:], by_period.sum(axis=2)[:, 9:])
    greatest = devices.values["AggProxyMaxAnomalyEWM03"]
    np.testing.assert_allclose(greatest[:, 2:], by_period.max(axis=2)[:, 2:])


def test_a_detector_says_nothing_before_it_has_seen_enough(devices: Recording) -> None:
    for name, minimum in zip(ALGORITHMS, (10, 3), strict=True):
        assert np.isnan(devices.sigmas[name][:, : minimum - 1]).all()
        assert not np.isnan(devices.sigmas[name][:, minimum - 1 :]).any()


def test_sigma_is_that_of_the_protocol(devices: Recording, drawn: Block) -> None:
    by_period = np.stack(list(drawn.values.values()), axis=1).reshape(-1, PERIODS, MINUTE)
    plain = np.array([plain_sigmas(row, 0.1) for row in by_period.sum(axis=2)])
    recorded = devices.sigmas["AggProxySumAnomalyEWM01"]
    np.testing.assert_allclose(recorded[:, 9:], plain[:, 9:], rtol=1e-6)


def test_a_period_is_true_if_the_metric_of_the_device_fails_at_any_step_of_it(
    devices: Recording, drawn: Block
) -> None:
    truth = np.stack(list(drawn.is_error.values()), axis=1).reshape(-1, PERIODS, MINUTE)
    assert 0 < truth.mean() < 1
    np.testing.assert_array_equal(devices.truth, truth.any(axis=2))


def test_a_site_is_the_sum_of_its_devices_and_fails_with_any_of_them(devices: Recording) -> None:
    site = recorded("UveSite")
    assert len(site.series) == 4
    assert {key.partition(":")[0] for key, _ in site.series} == {"ObjectSite"}
    by_site = devices.truth.reshape(2, 2, 2, PERIODS).any(axis=1)
    np.testing.assert_array_equal(site.truth, by_site.reshape(-1, PERIODS))
    assert 0 < site.truth.mean() < 1
    name = ALGORITHMS[0]
    sums = devices.values[name].reshape(2, 2, 2, PERIODS).sum(axis=1)
    np.testing.assert_allclose(site.values[name], sums.reshape(-1, PERIODS))


def test_more_algorithms_than_run_on_one_metric_take_more_lives(devices: Recording) -> None:
    names = [
        f"AggProxy{reducer}AnomalyEWM0{alpha}"
        for reducer in proxies.REDUCERS
        for alpha in ("1", "3", "5")
    ]
    assert len(names) > proxies.ALGORITHMS_PER_METRIC
    told: list[tuple[int, int]] = []
    heard = record(
        DeviceSimulation(SMALL),
        "UveDevice",
        algorithms(*names),
        PERIODS,
        INTERVAL,
        lambda done, total: told.append((done, total)),
    )
    assert list(heard.sigmas) == names
    for name in ALGORITHMS:
        np.testing.assert_array_equal(heard.sigmas[name], devices.sigmas[name])
    total = 2 * (PERIODS + 8)
    assert told == [(done, total) for done in range(1, total + 1)]


class Broken(DeviceSimulation):
    """Leaves out the reports of one period, and from another on tells of an hour before."""

    def __init__(self, missing: int = -1, late: int = -1) -> None:
        super().__init__(SMALL)
        self._missing, self._late = missing, late

    def reports(self, block: Block) -> Iterator[Report]:
        period = (int(block.times[0]) - START) // (60 * SECOND)
        for report in super().reports(block):
            if period == self._late and report.times is not None:
                yield replace(report, times=report.times - 3600 * SECOND)
            if period != self._missing:
                yield report


def test_a_period_that_was_missed_is_an_error() -> None:
    with pytest.raises(RecordingError, match=r"a period was missed: at step 13, .* is at step 12"):
        record(Broken(missing=20), "UveDevice", algorithms(ALGORITHMS[0]), PERIODS, INTERVAL)


def test_a_sample_that_came_late_is_an_error() -> None:
    with pytest.raises(RecordingError, match=r"did not take all of it: samples_late \d+"):
        record(Broken(late=20), "UveDevice", algorithms(ALGORITHMS[0]), PERIODS, INTERVAL)


def test_emitters_that_do_not_all_tell_of_a_key_are_an_error() -> None:
    class Silent(Counting):
        proxied: Sequence[str] = ("UveDevice-load",)

    with pytest.raises(RecordingError, match="2 emitters tell 0 times of UveDevice"):
        record(Silent(), "UveDevice", algorithms(ALGORITHMS[0]), PERIODS, INTERVAL)


# ---- what is made of it


def test_the_warm_up_of_the_slowest_is_left_out_for_all(result: Result) -> None:
    assert (result.warm_up, result.periods) == (9, PERIODS - 9)
    truth = result.recording.truth[:, 9:]
    assert result.events == len(measures.events(truth))
    assert result.error_share == truth.mean()


def test_a_row_measures_one_algorithm_at_one_threshold(result: Result) -> None:
    truth = result.recording.truth[:, 9:]
    scores = np.abs(result.recording.sigmas["AggProxyMaxAnomalyEWM03"][:, 9:])
    delays = measures.delays(truth, scores > 1)
    (row,) = [
        row for row in result.rows if (row.name, row.threshold) == ("AggProxyMaxAnomalyEWM03", 1.0)
    ]
    assert row.found == np.isfinite(delays).sum() > 0
    assert row.delay == np.nanmedian(delays)
    assert row.false_alarms == measures.false_alarms(truth, scores > 1, 60)
    told = row.precision, row.recall, row.f1
    assert told == measures.precision_recall_f1(truth, scores > 1)
    assert row.vus_pr == measures.vus_pr(truth, scores, result.buffer)


def test_there_is_a_row_for_each_algorithm_and_threshold_and_the_baselines(result: Result) -> None:
    thresholded = [*ALGORITHMS, "last value (Sum)"]
    assert [(row.name, row.threshold) for row in result.rows] == [
        *((name, threshold) for name in thresholded for threshold in (1.0, 3.0)),
        ("always", None),
        ("never", None),
    ]


def test_always_finds_all_at_once_and_never_finds_nothing(result: Result) -> None:
    always, never = result.rows[-2:]
    assert (always.found, always.delay, always.recall) == (result.events, 0, 1)
    assert always.precision == result.error_share
    assert (never.found, never.delay, never.false_alarms, never.precision) == (0, None, 0, None)
    assert always.vus_pr == never.vus_pr


def test_the_same_seed_gives_the_same_table_and_another_one_another(result: Result) -> None:
    again = score(SMALL, algorithms=ALGORITHMS, thresholds=(1.0, 3.0), history=HISTORY)
    assert as_json(again) == as_json(result)
    other = SMALL.model_copy(update={"seed": 1})
    another = score(other, algorithms=ALGORITHMS, thresholds=(1.0, 3.0), history=HISTORY)
    assert as_json(another)["rows"] != as_json(result)["rows"]


def test_virtual_networks_are_scored_where_there_are_no_devices() -> None:
    configuration = network(
        companies=0,
        interval=INTERVAL,
        virtual_networks={
            "num_networks": 2,
            "num_vrouters": 3,
            "flood_rate": 0.02,
            "incident_length": 9,
        },
    )
    result = score(configuration, algorithms=ALGORITHMS, history=HISTORY)
    assert (result.level, result.series) == ("networks", 4)
    assert {metric for _, metric in result.recording.series} == {
        "ingress_flow_count",
        "egress_flow_count",
    }
    assert result.events > 0


# ---- the last value, a baseline


def test_the_last_value_is_compared_with_the_differences_before() -> None:
    values = np.array([[1.0, 4.0, 0.0, 5.0]])
    # Differences 3, 4, 5; before the third their mean square is (9 + 16) / 2.
    assert last_value(values).tolist() == [[0, 0, 4 / 3, 5 / math.sqrt(12.5)]]


def test_the_first_change_ever_is_infinitely_large() -> None:
    assert last_value(np.array([[2.0, 2.0, 2.0, 3.0]])).tolist() == [[0, 0, 0, math.inf]]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), st.integers(0, 8))
def test_the_last_value_does_not_look_ahead(values: list[float], known: int) -> None:
    row = np.array([values])
    changed = row.copy()
    changed[:, known:] += 1000
    now, then = last_value(changed), last_value(row)
    assert now.shape == row.shape
    np.testing.assert_array_equal(now[:, :known], then[:, :known])


# ---- how far sigma goes


@given(
    st.sampled_from([0.01, 0.03, 0.1, 0.3, 0.5, 1.0]),
    st.lists(st.sampled_from([0, 1]) | st.integers(-100_000, 100_000), max_size=40),
)
def test_sigma_never_passes_its_bound(alpha: float, values: list[int]) -> None:
    sigmas = np.abs(plain_sigmas(values, alpha))
    assert not is_flagged(sigmas, bound(alpha)).any()


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.5])
def test_sigma_comes_as_far_as_its_bound_after_silence(alpha: float) -> None:
    *_, sigma = plain_sigmas([0.0] * 20 + [7.0], alpha)
    assert sigma == pytest.approx(bound(alpha))


def test_the_bound_at_alpha_a_tenth_is_three() -> None:
    assert bound(0.1) == pytest.approx(3)


def test_what_passes_a_threshold_by_rounding_is_not_flagged() -> None:
    scores = np.array([3.0, np.nextafter(3.0, 4.0), 3.001])
    assert is_flagged(scores, 3.0).tolist() == [False, False, True]


def test_the_greatest_sigma_seen_stands_beside_its_bound(result: Result) -> None:
    for reach in result.reaches:
        seen = np.abs(result.recording.sigmas[reach.algorithm][:, result.warm_up :])
        assert reach.greatest == seen.max() <= reach.bound * (1 + 1e-9)


def test_an_alarm_beyond_the_bound_finds_nothing_and_it_is_said_so(result: Result) -> None:
    silent = [row for row in result.rows if row.name in ALGORITHMS and row.threshold == 3.0]
    assert [row.found for row in silent] == [0, 0]
    assert "An alarm at 3 never rings with alpha 0.1 or 0.3." in conclusion(result)
    assert "An alarm at 1 never" not in conclusion(result)


def test_a_smaller_alpha_can_ring_where_a_greater_one_cannot(result: Result) -> None:
    reaches = [replace(result.reaches[0], alpha=alpha, bound=bound(alpha)) for alpha in (0.1, 0.01)]
    told = conclusion(replace(result, reaches=reaches))
    assert "An alarm at 3 never rings with alpha 0.1; with 0.01 it can." in told


# ---- what can't be scored


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"algorithms": ["AggProxyMode"]}, "unknown algorithm 'AggProxyMode'"),
        ({"algorithms": ["AggProxySum"]}, "AggProxySumAnomalyEWM01 does"),
        ({"algorithms": ["AggProxySumAnomalyEWM001"]}, "longer than 5940 s"),
        ({"level": "networks"}, "it has no virtual_networks"),
    ],
)
def test_what_cannot_be_scored_is_told_with_what_can(asked: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        score(SMALL, **{"algorithms": ALGORITHMS, "history": HISTORY, **asked})  # type: ignore[arg-type]


def test_periods_without_a_sample_cannot_be_scored() -> None:
    slow = SMALL.model_copy(update={"interval": 61.0})
    with pytest.raises(UsageError, match="it can be 60 s at most"):
        score(slow, algorithms=ALGORITHMS, history=HISTORY)


def test_a_network_without_devices_has_no_sites() -> None:
    with pytest.raises(UsageError, match="it has no devices"):
        score(network(companies=0), level="site", algorithms=ALGORITHMS, history=HISTORY)


# ---- how it looks


def test_the_table_has_every_row_and_says_what_follows(result: Result) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render(result))
    told = console.export_text()
    assert "SumAnomalyEWM01" in told
    assert "last value (Sum)" in told
    assert f"of {result.events}" in told
    assert "…" not in told.replace("AggProxy…", "")
    assert "never rings with alpha" in " ".join(told.split())


def test_json_has_all_but_the_recording(result: Result) -> None:
    told = json.loads(json.dumps(as_json(result), allow_nan=False))
    assert "recording" not in told
    assert len(told["rows"]) == len(result.rows)
    assert told["rows"][1]["threshold"] == 3.0
    assert told["rows"][1]["delay"] is None
    assert told["reaches"][0]["alpha"] == 0.1
    assert told["conclusion"] == conclusion(result)


# ---- the command


def arguments(tmp_path: Path, *more: str) -> list[str]:
    path = tmp_path / "network.json"
    path.write_text(SMALL.model_dump_json())
    return [
        *("score", str(path), "--history", "40m", "--thresholds", "3,1"),
        *("--algorithms", ",".join(ALGORITHMS), *more),
    ]


def test_the_command_prints_the_score_and_draws_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], result: Result
) -> None:
    picture = tmp_path / "score.png"
    assert command.main(arguments(tmp_path, "--plot", str(picture), "--series", "*/0/1 cpu*")) == 0
    assert json.loads(capsys.readouterr().out) == as_json(result)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_takes_another_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments(tmp_path, "--seed", "7")) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_when_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def told(*arguments: Any) -> None:
        *_, progress = arguments
        os.kill(os.getpid(), number)
        progress(1, 2)
        pytest.fail("it went on")

    monkeypatch.setattr("collectord.netops.score.record", told)
    before = signal.getsignal(number)
    assert command.main(arguments(tmp_path)) == 130
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--thresholds", "2,0"], "'2,0' is no list of numbers above 0"),
        (["--thresholds", "nan"], "'nan' is no list of numbers above 0"),
        (["--buffer", "-1"], "'-1' is not a whole number from 0 on"),
        (["--level", "rack"], "invalid choice: 'rack'"),
        (["--plot", "x.png", "--shown", "AggProxyMin"], "AggProxyMin is not scored"),
        (["--seed", "-1"], "seed: must be at least 0, not -1"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    try:
        code: object = command.main(arguments(tmp_path, *more))
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib_it_says_how_to_get_it_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "collectord.netops.plot", raising=False)
    for name in ["matplotlib", *sys.modules]:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(score_command, "score", lambda *_, **__: pytest.fail("too late"))
    assert command.main(arguments(tmp_path, "--plot", "score.png")) == 2
    assert "pip install 'collectord[plots]'" in capsys.readouterr().err


@pytest.mark.parametrize("history", [0.0, 60.0, HISTORY, 10 * HISTORY])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_picture_shows_as_much_as_is_asked_for_or_there_is(
    tmp_path: Path, result: Result, algorithm: str, history: float
) -> None:
    from collectord.netops.plot import plot

    picture = tmp_path / "score.png"
    plot(result, picture, pattern="*/0/1 cpu*", algorithm=algorithm, history=history)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_series_that_there_are_none_of_names_one(
    tmp_path: Path, result: Result
) -> None:
    from collectord.netops.plot import plot

    with pytest.raises(UsageError, match=r"no series fits 'x\*'; there is, for example, 'ObjectDe"):
        plot(result, tmp_path / "score.png", pattern="x*")


def test_a_picture_that_cannot_be_written_says_why(tmp_path: Path, result: Result) -> None:
    from collectord.netops.plot import plot

    with pytest.raises(UsageError, match="No such file or directory"):
        plot(result, tmp_path / "missing" / "score.png")
