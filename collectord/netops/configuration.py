"""What a network is made of and how it behaves, as people write it in JSON.

``read`` takes the text, ``Configuration.model_validate`` what JSON made of it; both tell all that
is wrong at once, each with the path of its field. What is missing has a default. The emitters
themselves are made in ``network.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from collectord.encoding import check_name
from collectord.netops.configuration_errors import sentences

CONFIGURATION_BYTES = 1 << 20
"""The longest text of a configuration that is read."""
EMITTERS = 10_000
"""The most devices and vrouters of virtual networks that one configuration may have."""
LABELS = 64
LABEL_CHARACTERS = 1024
METRICS = 32
"""The most metrics that a device may have."""
MINUTE_VALUES = 20_000_000
"""The most values in a minute, which is sent and judged as one.

With a step every second, 10,000 devices of 32 metrics have almost as many.
"""
SCENARIO_STEPS = 1 << 14
"""The longest scenario, which is short beside the life of a device in ``devices.py``."""
INCIDENT_STEPS = 1_000_000
FLOODED_FLOWS = 1_000_000
"""The most flows that a flood may bring to a network on a vrouter.

Their bytes, about 25,000 a second for each, are counted in 63 bits for more than ten years.
"""
VROUTER_METRICS = 6
"""How many a network on a vrouter has; see ``virtual_networks.py``."""
RESERVED = frozenset(
    {
        "alerts",
        "company",
        "device",
        "devices",
        "devices_in_error",
        "is_error",
        "labels",
        "latitude",
        "length",
        "longitude",
        "site",
    }
)
"""What a metric can't be called, since something beside the metrics is called so."""


class ConfigurationError(ValueError):
    """``errors`` has a sentence for each thing that is wrong, beginning with the field's path."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


def _name(name: str) -> str:
    try:
        check_name("metric", name)
    except ValueError as error:
        raise PydanticCustomError("refused", "{text}", {"text": str(error)}) from None
    if name in RESERVED:
        raise PydanticCustomError("refused", "must have another name: this one is reserved")
    return name


def _label(value: object) -> object:
    match value:
        case None | bool():
            return value
        case int() if -(1 << 63) <= value < 1 << 64:
            return value
        case float() if math.isfinite(value):
            return value
        case str() if len(value) > LABEL_CHARACTERS:
            raise PydanticCustomError("plain", f"must have at most {LABEL_CHARACTERS} characters")
        case str() if _is_unicode(value):
            return value
    raise PydanticCustomError("plain", "must be a text, a number of 64 bits, true, false or null")


def _is_unicode(text: str) -> bool:
    """False where it has a lone half of a surrogate pair, which nothing can encode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _location(value: object) -> tuple[float, float]:
    if isinstance(value, str):
        parts: list[Any] = value.strip().removeprefix("(").removesuffix(")").split(",")
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else []
        if not all(type(part) in (int, float) for part in parts):
            parts = []
    try:
        latitude, longitude = map(float, parts)
    except (ValueError, OverflowError):
        latitude = longitude = math.nan
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        raise PydanticCustomError(
            "plain",
            "must be a latitude within ±90 and a longitude within ±180, as in '(51.5, -0.1)'",
        )
    return latitude, longitude


Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Labels = Annotated[dict[Text, Annotated[Any, AfterValidator(_label)]], Field(max_length=LABELS)]
Location = Annotated[tuple[float, float], BeforeValidator(_location)]
"""Latitude and longitude in degrees, from ``"(51.5, -0.1)"`` or ``[51.5, -0.1]``."""
Probability = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=EMITTERS)]
Step = Annotated[int, Field(ge=0, le=SCENARIO_STEPS)]


class _Strict(BaseModel):
    """Nothing is converted, nothing unknown is taken."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def _refuse(cls, errors: Mapping[tuple[int | str, ...], str]) -> None:
        """Raise what is wrong, by the path from here, if anything is."""
        if errors:
            raise ValidationError.from_exception_data(
                cls.__name__,
                [
                    # A brace would be taken for a place to put something in.
                    InitErrorDetails(
                        type=PydanticCustomError("refused", "{text}", {"text": text}),
                        loc=path,
                        input=None,
                    )
                    for path, text in errors.items()
                ],
            )


class Distribution(_Strict):
    """Normal(mu, sigma) plus Normal(0, noise), held within min and max.

    ``max`` and ``min`` are by default six deviations off ``mu``. ``daily``, ``weekly`` and
    ``drift`` are shares of ``mu`` by which it rises and falls with the hours of the day, falls on
    weekends, and wanders over weeks.
    """

    mu: Number
    sigma: Annotated[float, Field(ge=0, le=1e15)]
    noise: Annotated[float, Field(ge=0, le=1e15)] = 0.0
    max: Number = math.inf
    min: Number = -math.inf
    daily: Share = 0.0
    weekly: Share = 0.0
    drift: Share = 0.0

    @property
    def deviation(self) -> float:
        """Of a value before it is held within min and max: sigma and noise together."""
        return math.hypot(self.sigma, self.noise)

    @model_validator(mode="after")
    def _check_extremes(self) -> Distribution:
        given = self.model_fields_set.copy()
        if "max" not in given:
            self.max = self.mu + 6 * self.deviation
        if "min" not in given:
            self.min = self.mu - 6 * self.deviation
        if self.max < self.min:
            least, most = f"{self.min:g}", f"{self.max:g}"
            if "max" not in given:
                text = f"must be at most max, by default six deviations above mu, {most}"
                self._refuse({("min",): f"{text}, not {least}"})
            default = "" if "min" in given else "by default six deviations below mu, "
            self._refuse({("max",): f"must be at least min, {default}{least}, not {most}"})
        return self


class Alert(_Strict):
    """What is said of a value that passes a threshold.

    ``StatReplace`` in ``alert`` is replaced by the value. ``type`` is true where low values are
    bad, and false where high ones are.
    """

    threshold: Number
    alert: Text = "the value (StatReplace) passes its threshold"
    type: bool = False


class Metric(_Strict):
    """One of the things that every device measures."""

    labels: Labels = {}
    metric: Distribution
    alerts: Alert | None = None


class Scenario(_Strict):
    """A failure: how many steps it takes, about, and at which of them each metric joins in.

    The metrics stand beside ``length``, as in ``{"cpu_utilization": 0, "length": 80}``.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Step]

    length: Annotated[int, Field(ge=1, le=SCENARIO_STEPS)]

    @property
    def joins(self) -> dict[str, int]:
        """Step by metric."""
        return self.__pydantic_extra__

    @model_validator(mode="after")
    def _check_joins(self) -> Scenario:
        self._refuse(
            {
                (name,): f"must be below length, {self.length}, not {step}"
                for name, step in self.joins.items()
                if step >= self.length
            }
        )
        return self


class PlannedError(_Strict):
    """A failure that is wanted: ``devices`` (``*`` is any run of characters) enter it at a step."""

    devices: Text = "*"
    step: Annotated[int, Field(ge=0, le=1 << 40)]
    scenario: Annotated[int, Field(ge=0)] = 0


class BoundingBox(_Strict):
    """Two corners of the map that all sites lie between."""

    nw: Location = (51.520249, -0.071591)
    se: Location = (51.490988, -0.188702)


class Deployment(_Strict):
    """How many devices there are, and where."""

    num_companies: Annotated[int, Field(ge=0, le=EMITTERS)] = 2
    num_sites_per_company: Count = 2
    num_devices_per_site: Count = 5
    site_locations_bounding_box: BoundingBox = BoundingBox()

    @property
    def devices(self) -> int:
        """How many in all."""
        return self.num_companies * self.num_sites_per_company * self.num_devices_per_site


class PlannedIncident(_Strict):
    """A flood or a drop that is wanted: where, from which step on, and for how many.

    ``vrouters`` is a pattern of ``<network>/<vrouter>``, as in ``frontend/*``, where ``*`` is any
    run of characters. The factor is that of every flood or drop, and so is ``length`` by default.
    """

    vrouters: Text = "*"
    step: Annotated[int, Field(ge=0, le=1 << 40)]
    kind: Literal["flood", "drop"]
    length: Annotated[int, Field(ge=1, le=INCIDENT_STEPS)] | None = None


class VirtualNetworks(_Strict):
    """Virtual networks, each of them on every vrouter, and what befalls them."""

    num_networks: Count = 3
    num_vrouters: Count = 10
    vms_per_vrouter: Annotated[int, Field(ge=0, le=1000)] = 2
    """Virtual machines of each network on each vrouter."""
    flows: Annotated[float, Field(ge=0, le=FLOODED_FLOWS)] = 40.0
    """Of a network on a vrouter, in each direction, in the mean of all of them and of the day."""
    flow_seconds: Annotated[float, Field(ge=0.001, le=86_400)] = 30.0
    """How long a flow lasts: the longer, the slower their number wanders."""
    daily: Share = 0.3
    weekly: Share = 0.0
    """By which the flows rise and fall with the day, and fall on weekends, as shares of it."""
    flood_rate: Probability = 0.0002
    drop_rate: Probability = 0.0002
    """With which a network that is well enters a flood or a drop, each step."""
    flood_factor: Annotated[float, Field(ge=1, le=100)] = 5.0
    drop_factor: Share = 0.1
    """How many times as many flows there are in a flood, and in a drop."""
    incident_length: Annotated[int, Field(ge=1, le=INCIDENT_STEPS)] = 120
    """Steps that a flood or a drop takes, about."""
    local_share: Share = 0.5
    """Of floods and drops are on one vrouter of the network, the others on all of them."""
    incidents: Annotated[list[PlannedIncident], Field(max_length=1000)] = []
    """Those that are wanted, beside the random ones; an error of devices says nothing of flows."""

    @model_validator(mode="after")
    def _check_together(self) -> VirtualNetworks:
        errors: dict[tuple[int | str, ...], str] = {}
        if self.flood_rate + self.drop_rate > 1:
            errors["drop_rate",] = f"must be at most 1 - flood_rate, {1 - self.flood_rate:g}"
        if self.flows * self.flood_factor > FLOODED_FLOWS:
            errors["flows",] = (
                f"must be at most {FLOODED_FLOWS} / flood_factor, "
                f"{FLOODED_FLOWS / self.flood_factor:g}, not {self.flows:g}"
            )
        self._refuse(errors)
        return self


def _default_metrics() -> dict[str, Metric]:
    return {
        "cpu_utilization": Metric(
            labels={"ver": 1, "unit": "percent", "target_type": "gauge"},
            metric=Distribution(mu=75, sigma=4, noise=1, max=100, min=0),
            alerts=Alert(
                threshold=80,
                alert="Operation - Chassis CPU Utilization (StatReplace) exceed Critical "
                "threshold (80.0)",
            ),
        ),
        "throughput": Metric(
            labels={"ver": 1, "unit": "mbyte_sec", "target_type": "gauge"},
            metric=Distribution(mu=200, sigma=50, noise=50, max=300, min=0),
            alerts=Alert(
                threshold=30,
                alert="Low Throughput (StatReplace) below threshold (3.0)",
                type=True,
            ),
        ),
    }


class Configuration(_Strict):
    """A network, how it behaves and where what it measures goes."""

    seed: Annotated[int, Field(ge=0, lt=1 << 64)] = 0
    """The same one gives the same network and the same series."""
    metrics: Annotated[dict[Name, Metric], Field(max_length=METRICS)] = Field(
        default_factory=_default_metrics
    )
    error_scenarios: Annotated[list[Scenario], Field(max_length=1000)] = []
    """By default one in which all metrics fail at once."""
    errors: Annotated[list[PlannedError], Field(max_length=1000)] = []
    error_rate: Probability = 0.001
    """With which a device that is well enters a scenario, each step."""
    site_error_rate: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    """With which all devices of a site enter the same scenario, each step."""
    interval: Annotated[float, Field(ge=0.001, le=86_400)] = 1.0
    """Seconds from step to step."""
    target: Text = "function:netops-demo-ingest"
    max_samples_per_batch: Annotated[int, Field(ge=1, le=1_000_000)] = 720
    deployment: Deployment = Deployment()
    state: Literal["idle", "generating"] = "idle"
    virtual_networks: VirtualNetworks | None = None

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Configuration:
        """Check and fill in what JSON or Python gave. Raises ConfigurationError."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise ConfigurationError(list(sentences(error, cls))) from None

    @model_validator(mode="after")
    def _check_together(self) -> Configuration:
        if "error_scenarios" not in self.model_fields_set and self.metrics:
            joins: dict[str, Any] = dict.fromkeys(self.metrics, 0)
            self.error_scenarios = [Scenario(length=80, **joins)]
        names = ", ".join(self.metrics) or "none"
        errors: dict[tuple[int | str, ...], str] = {
            ("error_scenarios", index, name): f"must be a metric; there are {names}"
            for index, scenario in enumerate(self.error_scenarios)
            for name in scenario.joins
            if name not in self.metrics
        }
        for index, planned in enumerate(self.errors):
            if planned.scenario >= len(self.error_scenarios):
                errors["errors", index, "scenario"] = (
                    f"must be below the number of error_scenarios, {len(self.error_scenarios)}, "
                    f"not {planned.scenario}"
                )
        networks = self.virtual_networks
        vrouters = networks.num_networks * networks.num_vrouters if networks else 0
        if self.deployment.devices + vrouters > EMITTERS:
            errors["deployment",] = (
                f"must have at most {EMITTERS} devices and vrouters of virtual networks in all, "
                f"not {self.deployment.devices} and {vrouters}"
            )
        width = self.deployment.devices * len(self.metrics) + vrouters * VROUTER_METRICS
        steps = max(60 / self.interval, 1)
        if width * steps > MINUTE_VALUES:
            errors["interval",] = (
                f"must leave at most {MINUTE_VALUES} values in a minute, "
                f"not {round(width * steps)}: {width} at each step"
            )
        self._refuse(errors)
        return self


def read_file(path: str | Path) -> Configuration:
    """The configuration in a file. Raises ConfigurationError, or OSError if it can't be read."""
    return read(Path(path).read_bytes())


def read(text: str | bytes) -> Configuration:
    """The configuration in a text of JSON. Raises ConfigurationError."""
    if len(text) > CONFIGURATION_BYTES:
        raise ConfigurationError(
            [f"the configuration is longer than {CONFIGURATION_BYTES} bytes, which is the most"]
        )
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError([f"the configuration is not JSON: {error}"]) from None
    return Configuration.model_validate(value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, item in pairs:
        if name in value:
            raise ValueError(f"{name!r:.100} is written twice in one object")
        value[name] = item
    return value
