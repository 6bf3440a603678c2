"""The devices of a network: what they measure, how they fail, and how they tell a collector.

Each device tells its own UVE, and as one of many sources that of its site and of its company.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from collectord.netops.block import SECOND, Block, Emitter, Measure, Report
from collectord.netops.configuration import Configuration, Metric
from collectord.netops.scenarios import NEVER, Episodes, Failures
from collectord.netops.shapes import Shape
from collectord.netops.topology import sites

FAILURES, SHAPES, SERIES = 2, 4, 5
"""The streams of random numbers for each purpose; ``topology.py`` has another."""
LIFE = 1 << 16
"""Steps after which all devices begin anew, and well. So nothing depends on what was longer ago."""
CHUNK = 256
"""Steps that are drawn at once, ..."""
CHUNK_VALUES = 1 << 21
"""... or fewer, if they have more values."""
DEVICE, SITE, COMPANY = "UveDevice", "UveSite", "UveCompany"


class DeviceSimulation:
    """The devices of a configuration; a ``block.Simulation``."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.emitters: Sequence[Emitter] = [
            emitter for site in sites(configuration) for emitter in site.emitters()
        ]
        self._keys = [_keys(emitter) for emitter in self.emitters]
        self.metrics: Mapping[str, Measure] = {
            name: Measure(metric.labels, functools.partial(alert_text, metric))
            for name, metric in configuration.metrics.items()
        }
        width = len(self.emitters) * len(self.metrics)
        self._chunk = max(min(CHUNK, CHUNK_VALUES // width), 1)
        summed = dict.fromkeys([*self.metrics, "devices", "devices_in_error"], "sum")
        self.aggtypes: Mapping[str, Mapping[str, str]] = {SITE: summed, COMPANY: summed}
        self.proxied: Sequence[str] = [
            f"{struct}-{name}" for struct in (DEVICE, SITE, COMPANY) for name in self.metrics
        ]

    def chunks(self, start: int, interval: float) -> Iterator[Block]:
        """As ``block.Simulation`` has it.

        What is drawn for a time depends on the configuration, the interval and that time alone,
        whenever a stream begins; but for planned errors, which count from there.
        """
        period = round(interval * SECOND)
        first, offset = divmod(start, period)
        metrics = enumerate(self._configuration.metrics.items())
        series = [
            _Series(self._configuration, number, name, metric, len(self.emitters))
            for number, (name, metric) in metrics
        ]
        for life in itertools.count(first // LIFE):
            begin = life * LIFE
            random = np.random.default_rng([self._configuration.seed, FAILURES, life])
            failures = Failures(self._configuration, self.emitters, random, first - begin)
            for place in range(0, LIFE, self._chunk):
                end = min(place + self._chunk, LIFE)
                episodes = failures.episodes(place, end)
                if begin + end <= first:
                    continue
                times = offset + period * np.arange(begin + place, begin + end)
                drawn = {
                    one.name: one.draw(times, begin + place, place, episodes) for one in series
                }
                yield Block(
                    times,
                    {name: values for name, (values, _) in drawn.items()},
                    {name: is_error for name, (_, is_error) in drawn.items()},
                ).part(max(first - begin - place, 0), end - place)

    def descriptions(self) -> Iterator[Report]:
        """What every device is, and its share of its site and company."""
        labels = {name: dict(measure.labels) for name, measure in self.metrics.items()}
        for emitter, keys in zip(self.emitters, self._keys, strict=True):
            place = {name: emitter.labels[name] for name in ("company", "latitude", "longitude")}
            site = {**place, "site": emitter.labels["site"], "labels": labels}
            company = {"company": place["company"], "labels": labels, "devices": 1}
            told = {DEVICE: site, SITE: {**site, "devices": 1}, COMPANY: company}
            for struct, key in keys.items():
                yield Report(emitter.source, key, struct, told[struct])

    def reports(self, block: Block) -> Iterator[Report]:
        """Every device's metrics, each told of the device, its site and its company.

        The alerts are those of the block's last step.
        """
        is_error = [*block.is_error.values()]
        in_error = np.logical_or.reduce(is_error).astype(np.int64)
        last = {name: array[:, -1].tolist() for name, array in block.values.items()}
        for row, emitter in enumerate(self.emitters):
            keys = self._keys[row]
            values = {name: array[row] for name, array in block.values.items()}
            truth = {name: array[row] for name, array in block.is_error.items()}
            summed = {**values, "devices_in_error": in_error[row]}
            told = {DEVICE: {**values, "is_error": truth}, SITE: summed, COMPANY: summed}
            for struct, key in keys.items():
                yield Report(emitter.source, key, struct, told[struct], block.times)
            texts = {name: self.metrics[name].alert(column[row]) for name, column in last.items()}
            alerts = {name: text for name, text in texts.items() if text}
            now = block.times[-1:]
            yield Report(emitter.source, keys[DEVICE], DEVICE, {"alerts": alerts}, now)


class _Series:
    """The series of one metric, device by device.

    Each metric has random numbers of its own, so that one more leaves the others as they are.
    """

    def __init__(
        self, configuration: Configuration, number: int, name: str, metric: Metric, devices: int
    ) -> None:
        self.name = name
        self._seed = configuration.seed
        self._number = number
        self._distribution = metric.metric
        random = np.random.default_rng([self._seed, SHAPES, number])
        self._shape = Shape(metric.metric, devices, random)
        self._devices = devices
        self._joins = np.array(
            [scenario.joins.get(name, NEVER) for scenario in configuration.error_scenarios], int
        )
        is_low = metric.alerts is not None and metric.alerts.type
        self._extreme = metric.metric.min if is_low else metric.metric.max

    def draw(
        self, times: NDArray[np.int64], step: int, place: int, episodes: Episodes
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Values and truth at these times: the steps from ``step`` on since the Unix epoch, and
        from ``place`` on among those that the episodes count."""
        random = np.random.default_rng([self._seed, SERIES, self._number, step])
        values = random.standard_normal((self._devices, len(times)))
        values *= self._distribution.deviation  # the sum of two normals is a normal
        values += self._shape.mean(times)
        np.clip(values, self._distribution.min, self._distribution.max, out=values)
        is_error = np.zeros(values.shape, np.bool_)
        failing, steps, likelihood = episodes.failing(self._joins)
        where = failing * len(times) + steps - place
        is_error.reshape(-1)[where] = True
        is_peak = random.random(len(where)) < likelihood
        values.reshape(-1)[where[is_peak]] = self._extreme
        return values, is_error


def alert_text(metric: Metric, value: float) -> str:
    """What is said of a value that passes its metric's threshold; "" for others."""
    alert = metric.alerts
    if alert is None or (value > alert.threshold if alert.type else value < alert.threshold):
        return ""
    shown = f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    return alert.alert.replace("StatReplace", shown)


def _keys(emitter: Emitter) -> dict[str, str]:
    """Of the UVEs that a device tells, by their struct."""
    return {
        DEVICE: f"ObjectDevice:{emitter.id}",
        SITE: f"ObjectSite:{emitter.labels['site']}",
        COMPANY: f"ObjectCompany:{emitter.labels['company']}",
    }
