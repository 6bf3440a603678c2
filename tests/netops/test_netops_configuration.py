"""The configuration: what is taken, what is filled in, and what is said about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.netops.configuration import (
    CONFIGURATION_BYTES,
    EMITTERS,
    METRICS,
    SCENARIO_STEPS,
    Configuration,
    ConfigurationError,
    read,
    read_file,
)
from netops.seed import SEED

REPOSITORY = Path(__file__).parent.parent.parent
KNOWN = (
    "seed, metrics, error_scenarios, errors, error_rate, site_error_rate, interval, target, "
    "max_samples_per_batch, deployment, state, virtual_networks"
)
A_LOCATION = "must be a latitude within ±90 and a longitude within ±180, as in '(51.5, -0.1)', not "
NO_NAME = "is not a name: letters, digits and _, at most 128 of them, not beginning with a digit"
A_LABEL = "must be a text, a number of 64 bits, true, false or null, not "


def errors_of(text: str | bytes) -> list[str]:
    """What is found wrong with a configuration."""
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return caught.value.errors


def metrics(**metric: Any) -> dict[str, Any]:
    """A configuration whose one metric, ``load``, is good but for what is given."""
    return {"metrics": {"load": {"metric": {"mu": 10, "sigma": 1}, **metric}}}


def distribution(**fields: Any) -> dict[str, Any]:
    """The same, with a distribution that is good but for what is given."""
    return metrics(metric={"mu": 10, "sigma": 1, **fields})


# --- what is taken ---------------------------------------------------------------------------


def test_the_configuration_of_the_seed_is_taken_as_it_stands() -> None:
    given = json.loads(SEED)
    taken = read(SEED).model_dump()
    cpu, throughput = taken["metrics"]["cpu_utilization"], taken["metrics"]["throughput"]
    assert cpu["labels"] == {"ver": 1, "unit": "percent", "target_type": "gauge"}
    assert cpu["metric"].items() >= {"mu": 75, "sigma": 4, "noise": 1, "max": 100, "min": 0}.items()
    assert cpu["alerts"] == given["metrics"]["cpu_utilization"]["alerts"] | {"type": False}
    assert throughput["labels"] == {"ver": 1, "unit": "mbyte_sec", "target_type": "gauge"}
    assert throughput["metric"]["sigma"] == throughput["metric"]["noise"] == 50
    assert throughput["alerts"] == given["metrics"]["throughput"]["alerts"]
    for name in given.keys() - {"metrics"}:
        assert taken[name] == given[name]


def test_the_example_is_the_configuration_of_the_seed_and_a_deployment() -> None:
    example = json.loads((REPOSITORY / "conf" / "netops.json").read_text())
    deployment = example.pop("deployment")
    assert example == json.loads(SEED)
    assert read_file(REPOSITORY / "conf" / "netops.json") == Configuration.model_validate(
        {**example, "deployment": deployment}
    )


@pytest.mark.parametrize("text", ["{}", b" {\n}", "\ufeff{}".encode(), "{}".encode("utf-16")])
def test_what_is_missing_is_that_of_the_seed(text: str | bytes) -> None:
    default, seed = read(text), read(SEED)
    assert default.model_dump(exclude={"error_scenarios"}) == seed.model_dump(
        exclude={"error_scenarios"}
    )
    assert (default.deployment.devices, default.state, default.virtual_networks) == (
        20,
        "idle",
        None,
    )


def test_without_error_scenarios_all_metrics_fail_at_once() -> None:
    (scenario,) = read("{}").error_scenarios
    assert (scenario.length, scenario.joins) == (80, {"cpu_utilization": 0, "throughput": 0})
    (scenario,) = Configuration.model_validate(metrics()).error_scenarios
    assert (scenario.length, scenario.joins) == (80, {"load": 0})


def test_without_metrics_there_is_nothing_to_fail() -> None:
    assert read('{"metrics": {}}').error_scenarios == []


def test_an_empty_list_of_error_scenarios_stays_empty() -> None:
    assert read('{"error_scenarios": []}').error_scenarios == []


def test_the_extremes_are_six_deviations_off_where_none_are_given() -> None:
    load = Configuration.model_validate(distribution(mu=100, sigma=3, noise=4)).metrics["load"]
    assert (load.metric.min, load.metric.deviation, load.metric.max) == (70, 5, 130)


def test_an_alert_says_something_by_itself() -> None:
    load = Configuration.model_validate(metrics(alerts={"threshold": 12})).metrics["load"]
    assert load.alerts is not None
    assert "StatReplace" in load.alerts.alert
    assert not load.alerts.type


@pytest.mark.parametrize("corner", ["(51.5, -0.1)", "51.5,-0.1", " ( 51.5 , -0.1 ) ", [51.5, -0.1]])
def test_a_corner_is_a_text_or_a_pair(corner: Any) -> None:
    box = {"site_locations_bounding_box": {"nw": corner}}
    taken = Configuration.model_validate({"deployment": box}).deployment
    assert taken.site_locations_bounding_box.nw == (51.5, -0.1)


@pytest.mark.parametrize("interval", [1, 86_400])
def test_the_largest_network_of_all_metrics_may_take_a_step_every_second(interval: int) -> None:
    load = distribution()["metrics"]["load"]
    taken = Configuration.model_validate(
        {
            "metrics": {f"m{number}": load for number in range(METRICS)},
            "deployment": {"num_companies": 1000},
            "interval": interval,
        }
    )
    assert taken.deployment.devices == EMITTERS


def test_what_is_written_out_reads_as_the_same() -> None:
    configuration = read(SEED)
    assert read(configuration.model_dump_json()) == configuration


# --- wrong fields ----------------------------------------------------------------------------

WRONG: list[tuple[Any, list[str]]] = [
    # the document
    ([], ["the configuration must be an object, not a list"]),
    (None, ["the configuration must be an object, not null"]),
    ({"sed": 1}, [f"sed: is unknown; known are {KNOWN}"]),
    ({"\x1b[2J": 1}, [f'"\\u001b[2J": is unknown; known are {KNOWN}']),
    ({"a": 1, "b": 2}, [f"{name}: is unknown; known are {KNOWN}" for name in "ab"]),
    # plain fields
    ({"seed": -1}, ["seed: must be at least 0, not -1"]),
    ({"seed": 1.5}, ["seed: must be a whole number, not 1.5"]),
    ({"seed": True}, ["seed: must be a whole number, not true"]),
    ({"seed": 1 << 64}, [f"seed: must be below {1 << 64}, not {1 << 64}"]),
    (
        {"seed": 10**4000},
        [f"seed: must be below {1 << 64}, not 1{'0' * 75} …"],
    ),
    ({"error_rate": 1.1}, ["error_rate: must be at most 1, not 1.1"]),
    ({"error_rate": -1}, ["error_rate: must be at least 0, not -1"]),
    ({"error_rate": "0.1"}, ['error_rate: must be a number, not "0.1"']),
    ({"error_rate": None}, ["error_rate: must be a number, not null"]),
    ({"site_error_rate": float("nan")}, ["site_error_rate: must be a finite number, not NaN"]),
    ({"site_error_rate": 0.2}, ["site_error_rate: must be at most 0.1, not 0.2"]),
    ({"interval": 0}, ["interval: must be at least 0.001, not 0"]),
    ({"interval": 1e9}, ["interval: must be at most 86400, not 1000000000.0"]),
    ({"interval": float("inf")}, ["interval: must be a finite number, not Infinity"]),
    ({"target": ""}, ['target: must have at least 1 character, not ""']),
    ({"target": 8086}, ["target: must be a text, not 8086"]),
    ({"target": "\ud800"}, ['target: must be a text that UTF-8 can write, not "\\ud800"']),
    (
        {"target": "x" * 2000},
        [f'target: must have at most 1024 characters, not "{"x" * 75} …'],
    ),
    ({"max_samples_per_batch": 0}, ["max_samples_per_batch: must be at least 1, not 0"]),
    ({"state": "running"}, ["state: must be 'idle' or 'generating', not \"running\""]),
    # metrics
    ({"metrics": []}, ["metrics: must be an object, not a list"]),
    ({"metrics": {"load": 1}}, ["metrics.load: must be an object, not 1"]),
    ({"metrics": {"load": {}}}, ["metrics.load.metric: is required"]),
    ({"metrics": {"a-b": metrics()["metrics"]["load"]}}, [f"metrics.a-b: metric 'a-b' {NO_NAME}"]),
    ({"metrics": {"": metrics()["metrics"]["load"]}}, [f"metrics.: metric '' {NO_NAME}"]),
    (
        {"metrics": {"x" * 129: metrics()["metrics"]["load"]}},
        [f"metrics.{'x' * 100}: metric '{'x' * 129}' {NO_NAME}"],
    ),
    (
        {"metrics": {"is_error": metrics()["metrics"]["load"]}},
        ["metrics.is_error: must have another name: this one is reserved"],
    ),
    (
        {"metrics": {f"m{n}": metrics()["metrics"]["load"] for n in range(METRICS + 1)}},
        [f"metrics: must have at most {METRICS} entries, not {METRICS + 1}"],
    ),
    (
        metrics(metrics={}),
        ["metrics.load.metrics: is unknown; known are labels, metric, alerts"],
    ),
    (metrics(labels={"a": [1]}), [f"metrics.load.labels.a: {A_LABEL}a list"]),
    (metrics(labels={"a": 1 << 64}), [f"metrics.load.labels.a: {A_LABEL}{1 << 64}"]),
    (metrics(labels={"a": float("nan")}), [f"metrics.load.labels.a: {A_LABEL}NaN"]),
    (metrics(labels={"a": "\ud800"}), [f'metrics.load.labels.a: {A_LABEL}"\\ud800"']),
    (metrics(metric={}), [f"metrics.load.metric.{name}: is required" for name in ("mu", "sigma")]),
    (distribution(sigma=-4), ["metrics.load.metric.sigma: must be at least 0, not -4"]),
    (distribution(noise=-0.5), ["metrics.load.metric.noise: must be at least 0, not -0.5"]),
    (distribution(mu=float("nan")), ["metrics.load.metric.mu: must be a finite number, not NaN"]),
    (
        distribution(mu=1e300),
        ["metrics.load.metric.mu: must be at most 1000000000000000, not 1e+300"],
    ),
    (distribution(mu=10**400), [f"metrics.load.metric.mu: must be a number, not 1{'0' * 75} …"]),
    (distribution(min=5, max=4), ["metrics.load.metric.max: must be at least min, 5, not 4"]),
    (
        distribution(max=3),
        [
            "metrics.load.metric.max: must be at least min, by default six deviations below mu, 4, "
            "not 3"
        ],
    ),
    (
        distribution(min=17),
        [
            "metrics.load.metric.min: must be at most max, by default six deviations above mu, 16, "
            "not 17"
        ],
    ),
    (distribution(daily=2), ["metrics.load.metric.daily: must be at most 1, not 2"]),
    (
        distribution(mean=1),
        [
            "metrics.load.metric.mean: is unknown; known are "
            "mu, sigma, noise, max, min, daily, weekly, drift"
        ],
    ),
    (metrics(alerts={}), ["metrics.load.alerts.threshold: is required"]),
    (
        metrics(alerts={"threshold": 1, "type": "low"}),
        ['metrics.load.alerts.type: must be true or false, not "low"'],
    ),
    # scenarios
    ({"error_scenarios": {}}, ["error_scenarios: must be a list, not an object"]),
    ({"error_scenarios": [{}]}, ["error_scenarios.0.length: is required"]),
    (
        {"error_scenarios": [{"length": 0}]},
        ["error_scenarios.0.length: must be at least 1, not 0"],
    ),
    (
        {"error_scenarios": [{"length": 8}, {"length": 8, "throughput": 8}]},
        ["error_scenarios.1.throughput: must be below length, 8, not 8"],
    ),
    (
        {"error_scenarios": [{"length": 8, "throughput": -1}]},
        ["error_scenarios.0.throughput: must be at least 0, not -1"],
    ),
    (
        {"error_scenarios": [{"length": 8, "througput": 1}]},
        ["error_scenarios.0.througput: must be a metric; there are cpu_utilization, throughput"],
    ),
    (
        {"error_scenarios": [{"length": SCENARIO_STEPS + 1, "throughput": SCENARIO_STEPS + 1}]},
        [
            f"error_scenarios.0.length: must be at most {SCENARIO_STEPS}, not {SCENARIO_STEPS + 1}",
            f"error_scenarios.0.throughput: must be at most {SCENARIO_STEPS}, "
            f"not {SCENARIO_STEPS + 1}",
        ],
    ),
    # planned errors
    ({"errors": [{}]}, ["errors.0.step: is required"]),
    ({"errors": [{"step": -1}]}, ["errors.0.step: must be at least 0, not -1"]),
    (
        {"errors": [{"step": 1, "scenario": 1}]},
        ["errors.0.scenario: must be below the number of error_scenarios, 1, not 1"],
    ),
    (
        {"errors": [{"step": 1, "device": "*"}]},
        ["errors.0.device: is unknown; known are devices, step, scenario"],
    ),
    # deployment
    (
        {"deployment": {"num_sites_per_company": 0}},
        ["deployment.num_sites_per_company: must be at least 1, not 0"],
    ),
    (
        {"deployment": {"num_companies": 11, "num_devices_per_site": 1000}},
        [
            f"deployment: must have at most {EMITTERS} devices and vrouters of virtual networks "
            "in all, not 22000 and 0"
        ],
    ),
    (
        {"virtual_networks": {"num_networks": 1000, "num_vrouters": 10}},
        [
            f"deployment: must have at most {EMITTERS} devices and vrouters of virtual networks "
            "in all, not 20 and 10000"
        ],
    ),
    *(
        (
            {"deployment": {"site_locations_bounding_box": {"nw": corner}}},
            [f"deployment.site_locations_bounding_box.nw: {A_LOCATION}{shown}"],
        )
        for corner, shown in (
            ("51.5", '"51.5"'),
            ("(north, west)", '"(north, west)"'),
            ("(91, 0)", '"(91, 0)"'),
            ("(nan, 0)", '"(nan, 0)"'),
            ([0, 181], "a list"),
            ([True, 0], "a list"),
            ([10**400, 0], "a list"),
            (7, "7"),
        )
    ),
    # all together
    (
        {"interval": 0.05, "deployment": {"num_companies": 1000}},
        [
            "interval: must leave at most 20000000 values in a minute, not 24000000: "
            "20000 at each step"
        ],
    ),
    (
        {
            "interval": 0.125,
            "deployment": {"num_companies": 0},
            "virtual_networks": {"num_networks": 10, "num_vrouters": 1000},
        },
        [
            "interval: must leave at most 20000000 values in a minute, not 28800000: "
            "60000 at each step"
        ],
    ),
    # several at once
    (
        {"seed": -1, "interval": "1", **metrics(metric={"mu": 1})},
        [
            "seed: must be at least 0, not -1",
            "metrics.load.metric.sigma: is required",
            'interval: must be a number, not "1"',
        ],
    ),
]


@pytest.mark.parametrize(("value", "errors"), WRONG, ids=[errors[0][:60] for _, errors in WRONG])
def test_what_is_wrong_is_named_by_its_path(value: Any, errors: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Configuration.model_validate(value)
    assert caught.value.errors == errors
    assert str(caught.value) == "; ".join(errors)


def test_reading_json_says_the_same_as_checking_a_value() -> None:
    for value, errors in WRONG:
        assert errors_of(json.dumps(value)) == errors


def test_no_more_than_twenty_errors_are_told() -> None:
    *told, last = errors_of(json.dumps({"errors": [{}] * 50}))
    assert told == [f"errors.{index}.step: is required" for index in range(20)]
    assert last == "and 30 more are wrong"


# --- wrong JSON ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ('{"seed": 1', "Expecting ',' delimiter: line 1 column 11 (char 10)"),
        ("{'seed': 1}", "Expecting property name enclosed in double quotes: line 1 column 2"),
        ("{} {}", "Extra data: line 1 column 4 (char 3)"),
        (b"\x80{}", "'utf-8' codec can't decode byte 0x80 in position 0"),
        ("[" * 100_000, "maximum recursion depth exceeded"),
        ('{"seed":' * 100_000, "maximum recursion depth exceeded"),
        ('{"seed": 1, "seed": 1}', "'seed' is written twice in one object"),
        (SEED.replace('"sigma"', '"mu"'), "'mu' is written twice in one object"),
        ('{"seed": ' + "9" * 5000 + "}", "Exceeds the limit (4300"),
    ],
    ids=lambda text: repr(text)[:20],
)
def test_what_is_no_json_is_refused(text: str | bytes, error: str) -> None:
    (only,) = errors_of(text)
    assert only.startswith(f"the configuration is not JSON: {error}")


def test_numbers_that_json_has_not_are_refused_by_their_field() -> None:
    assert errors_of('{"interval": NaN, "error_rate": 1e999, "site_error_rate": -Infinity}') == [
        "error_rate: must be a finite number, not Infinity",
        "site_error_rate: must be a finite number, not -Infinity",
        "interval: must be a finite number, not NaN",
    ]


def test_a_text_that_is_too_long_is_not_read() -> None:
    assert read("{}" + " " * (CONFIGURATION_BYTES - 2)) == read("{}")
    assert errors_of("{}" + " " * (CONFIGURATION_BYTES - 1)) == [
        "the configuration is longer than 1048576 bytes, which is the most"
    ]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(st.characters(), max_size=20)
        | st.sampled_from([*Configuration.model_fields, "metric", "mu", "sigma", "length"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from([*Configuration.model_fields, "metric", "mu", "sigma", "length"])
                | st.text(max_size=5),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_anything_is_taken_or_refused_in_words_that_can_be_printed(value: Any) -> None:
    said = "taken"
    try:
        read(json.dumps(value))
    except ConfigurationError as error:
        said = str(error)
    assert said.isprintable()
    assert said


def test_a_file_is_read_and_one_that_is_not_there_is_the_systems_error(tmp_path: Path) -> None:
    path = tmp_path / "network.json"
    path.write_text(SEED)
    assert read_file(path) == read(SEED)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nowhere.json")


def test_an_unknown_field_hides_no_other_error() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Configuration.model_validate(
            {"metrics": {"load": {"metric": {"mu": 1, "sigma": -1}, "alert": {}}}, "error_rate": -1}
        )
    assert refused.value.errors == [
        "metrics.load.metric.sigma: must be at least 0, not -1",
        "metrics.load.alert: is unknown; known are labels, metric, alerts",
        "error_rate: must be at least 0, not -1",
    ]


def test_labels_are_few_and_short() -> None:
    load = metrics()["metrics"]["load"]
    many = {"metrics": {"load": {**load, "labels": {f"l{n}": n for n in range(65)}}}}
    long = {"metrics": {"load": {**load, "labels": {"text": "x" * 1025}}}}
    assert errors_of(json.dumps(many)) == [
        "metrics.load.labels: must have at most 64 entries, not 65"
    ]
    [error] = errors_of(json.dumps(long))
    assert error.startswith("metrics.load.labels.text: must have at most 1024 characters, not ")
