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
from collectord.netops.draws import Draws, generator
from collectord.netops.scenarios import NEVER, SPAN, Episodes, Failures
from collectord.netops.shapes import Shape
from collectord.netops.topology import sites

LIFE = 1 << 18
"""Steps after which all devices begin anew, and well, but for planned errors that are under way.

So nothing depends on what was longer ago; a failure that is under way at the end is cut short.
"""
CHUNK = 1 << 8
"""Steps after which each series goes on with new random numbers; ``SPAN`` is a multiple."""
BLOCK_VALUES = 1 << 21
"""The most values that are drawn at once, if a step has no more."""
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
        self._steps = max(min(CHUNK, BLOCK_VALUES // width), 1)
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
        series = {
            name: _Series(self._configuration, name, metric, len(self.emitters))
            for name, metric in self._configuration.metrics.items()
        }
        for life, chunk, episodes in self._chunks(first):
            for one in series.values():
                one.begin((life + chunk) // CHUNK)
            # Numbers are drawn in the order of the steps, so that how many at once is the same.
            for place in range(chunk, chunk + CHUNK, self._steps):
                end = min(place + self._steps, chunk + CHUNK)
                times = offset + period * np.arange(life + place, life + end)
                here = episodes.within(place, end)
                drawn = {name: one.draw(times, place, here) for name, one in series.items()}
                if life + end > first:
                    yield Block(
                        times,
                        {name: values for name, (values, _) in drawn.items()},
                        {name: is_error for name, (_, is_error) in drawn.items()},
                    ).part(max(first - life - place, 0), end - place)

    def _chunks(self, first: int) -> Iterator[tuple[int, int, Episodes]]:
        """From the one on that has step ``first``: where its life begins, where in it the chunk
        does, and who fails, counted in steps of the life."""
        for life in itertools.count(first // LIFE * LIFE, LIFE):
            failures = Failures(self._configuration, self.emitters, life // LIFE, first - life)
            for span, episodes in zip(range(0, LIFE, SPAN), failures.spans(), strict=False):
                for chunk in range(span, span + SPAN, CHUNK):
                    if life + chunk + CHUNK > first:
                        yield life, chunk, episodes

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

    Each metric has random numbers of its own, by its name, so that one more leaves the others as
    they are.
    """

    def __init__(
        self, configuration: Configuration, name: str, metric: Metric, devices: int
    ) -> None:
        self._seed = configuration.seed
        self._name = name
        self._distribution = metric.metric
        self._shape = Shape(metric.metric, devices, generator(self._seed, Draws.SHAPES, name))
        self._devices = devices
        self._joins = np.array(
            [scenario.joins.get(name, NEVER) for scenario in configuration.error_scenarios], int
        )
        is_low = metric.alerts is not None and metric.alerts.type
        self._extreme = metric.metric.min if is_low else metric.metric.max

    def begin(self, chunk: int) -> None:
        """What is drawn from now on is of that chunk, the chunks counted since the Unix epoch."""
        self._random = generator(self._seed, Draws.SERIES, chunk, self._name)
        self._peaks = generator(self._seed, Draws.PEAKS, chunk, self._name)

    def draw(
        self, times: NDArray[np.int64], place: int, episodes: Episodes
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Values and truth at these times, which are the next ones of the chunk, and the steps from
        ``place`` on among those that the episodes count."""
        normal = self._random.standard_normal((len(times), self._devices))
        # The sum of two normals is a normal.
        values = np.multiply(normal.T, self._distribution.deviation, order="C")
        values += self._shape.mean(times)
        np.clip(values, self._distribution.min, self._distribution.max, out=values)
        is_error = np.zeros(values.shape, np.bool_)
        failing, steps, likelihood = episodes.failing(self._joins)
        where = failing * len(times) + steps - place
        is_error.reshape(-1)[where] = True
        in_order = np.argsort(steps * self._devices + failing)
        is_peak = self._peaks.random(len(where)) < likelihood[in_order]
        values.reshape(-1)[where[in_order[is_peak]]] = self._extreme
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
