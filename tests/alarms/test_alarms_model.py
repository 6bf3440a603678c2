"""What is raised against a full evaluation, in random lives of a collector.

Alarms evaluate what changed, and only the rules and the structs that it concerns. Here all rules
are evaluated on whole views after every few steps of a life, and what is raised has to be just
that. A life is told by its seed: the same one is the same life.

``LIVES_SEED=<n>`` begins elsewhere, ``LIVES=<n>`` lives as many lives.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import pytest

from collectord import proxies
from collectord.alarms import alarms
from collectord.alarms.alarms import Alarms
from collectord.alarms.evaluation import CompiledRule, OrList, compile_rule, is_same
from collectord.alarms.operations import OPERATIONS
from collectord.alarms.rules import Rule
from collectord.clock import Clock
from collectord.engine import Engine
from collectord.reader import Reader

FIRST = int(os.environ.get("LIVES_SEED", "1"))
LIVES = int(os.environ.get("LIVES", "200"))
SHARES = 4
STEPS = 40
"""After each of which everything is compared; each is one to three things that happen."""
SHOWN = 8
"""Of the last things that happened, where something is wrong."""

SECOND = 1_000_000
PERIOD = 60 * SECOND
START = 28_000_000 * PERIOD
LATENESS = SECOND

KEYS = ["T:k1", "T:k1b", "T:k2", "U:u"]
SOURCES = ["h1", "h2", "h3"]
SCORE, SUM = "AggProxySumAnomalyEWM03-S-a", "AggProxySum-S-a"
METRICS = [
    proxies.specifications(proxies.parse_proxy_list(text))
    for text in ("S-a:AggProxySum:AggProxySumAnomalyEWM03 Q-a:AggProxySum", "S-a:AggProxySum")
]
AGGTYPES = [
    {"S": {"a": "sum", "m": "sum", "l": "append", "b": "sum"}},
    {"S": {"a": "append"}},
    {"S": {"m": "union"}},
]
PATHS = [
    *("S.a", "S.a", "S.b", "S.l", "S.l.n", "S.m.x", "S.m.*", "S.t.k", "Q.a", "Q.c", "Z.a"),
    *("S", "Q", "Z", SUM, "S.*", "S.__key", "*.a", f"{SUM}.__key"),
    *(f"{SUM}.{rest}" for rest in ("value", "value.value", "value.staging", "value.*", "deleted")),
    *(f"{SCORE}.value.{name}" for name in ("sigma", "metric", "samples", "state.mean", "*")),
    *(f"{SCORE}.value", f"{SCORE}.*.sigma", "AggProxySum-Q-a.value.value"),
]


class StandingClock(Clock):
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = START
        super().__init__(lambda: self.now * 1000, lambda: self.now * 1000)


class Life:
    """An engine, alarms on it, and what chance does to them."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = StandingClock()
        self.sources = SOURCES[: self.chance.randint(1, 3)]
        self.engine = Engine(
            partitions=self.chance.choice([1, 3]), metrics=METRICS[0], lateness=LATENESS
        )
        self.published: dict[str, Any] = {}
        self.happened: deque[object] = deque(maxlen=SHOWN)
        self.rules = self._some_rules([1, 1, 3])
        self.alarms = Alarms(
            self.engine,
            [compiled.rule for compiled in self.rules],
            clock=self.clock,
            limit=10_000,
            publish=self._publish,
        )
        self.reader = Reader(self.engine)

    def close(self) -> None:
        self.reader.close()
        self.alarms._reader.close()

    # ---- what happens --------------------------------------------------------------------------

    def happen(self) -> None:
        """One thing, as likely as its number says."""
        happenings: dict[Callable[[], object], int] = {
            self._tell: 75,
            self._pass_time: 17,
            self._expire: 4,
            self._configure: 2,
            self._change_rules: 1,
            self._let_others_watch: 1,
        }
        (happening,) = self.chance.choices(list(happenings), list(happenings.values()))
        what = happening()
        self.happened.append((happening.__name__, self.clock.now - START, what))

    def _tell(self) -> object:
        chance = self.chance
        batch: dict[str, Any] = {"source": chance.choice(self.sources), "records": []}
        for _ in range(chance.choice([1, 1, 4])):
            names = chance.sample(["a", "b", "c", "l", "m", "t"], chance.randint(1, 3))
            attributes = {name: self._value_of(name) for name in names}
            struct = chance.choice(["S", "S", "S", "Q", "Z"])
            is_removed = chance.random() < 0.08
            batch["records"].append(
                [chance.choice(KEYS), struct, None if is_removed else attributes]
            )
        if chance.random() < 0.08:
            batch["aggtypes"] = chance.choice(AGGTYPES)
        self.engine.apply(msgpack.packb(batch), self.clock.now, self.clock.now)
        return batch

    def _value_of(self, attribute: str) -> Any:
        chance = self.chance
        if chance.random() < 0.12:
            return None
        match attribute:
            case "a" if chance.random() < 0.8:
                return chance.randint(0, 4)
            case "l":
                return [{"n": chance.randint(0, 3)} for _ in range(chance.randint(0, 3))]
            case "m":
                members = chance.sample("xyz", chance.randint(0, 3))
                return {member: chance.randint(0, 4) for member in members}
            case "t":
                return json.dumps({"k": chance.randint(0, 3)})
        if chance.random() < 0.6:
            return chance.choice([chance.randint(-1, 5), chance.uniform(0, 4)])
        return chance.choice(["2", "x", True, [1], float("nan"), 2**60])

    def _pass_time(self) -> object:
        self.clock.now += self.chance.choice([SECOND, 20 * SECOND, 61 * SECOND, PERIOD, 3 * PERIOD])
        for partition in range(self.engine.partitions):
            self.engine.advance(partition, self.clock.now, self.clock.now)
        return None

    def _expire(self) -> object:
        return self.engine.expire(self.clock.now, self.chance.choice([30, 100]) * SECOND)

    def _configure(self) -> object:
        which = self.chance.randrange(len(METRICS))
        self.engine.configure(METRICS[which], LATENESS)
        self.alarms.look_at_all()
        return which

    def _change_rules(self) -> object:
        self.rules = self._some_rules([0, 1, 3])
        rules = [compiled.rule for compiled in self.rules]
        self.alarms.take_on(rules)
        return rules

    def _let_others_watch(self) -> object:
        is_watched = self.chance.random() < 0.5
        self.engine.watch(is_watched)
        return is_watched

    def _take_changed(self) -> None:
        for partition in range(self.engine.partitions):
            self.engine.take_changed(partition)

    # ---- rules ---------------------------------------------------------------------------------

    def _some_rules(self, how_many: list[int]) -> list[CompiledRule]:
        chance = self.chance
        return [
            compile_rule(
                Rule.model_validate(
                    {
                        "name": f"r{number}",
                        "uve_keys": chance.choice([["T"], ["T"], ["T:k1*"], ["T", "U"]]),
                        "severity": 0,
                        "alarm_rules": {
                            "or_list": [
                                {"and_list": [self._condition() for _ in self._one_or_two()]}
                                for _ in self._one_or_two()
                            ]
                        },
                    }
                )
            )
            for number in range(chance.choice(how_many))
        ]

    def _one_or_two(self) -> range:
        return range(self.chance.choice([1, 1, 2]))

    def _condition(self) -> dict[str, Any]:
        operation = self.chance.choice(list(OPERATIONS))
        if self.chance.random() < 0.25:
            operand2 = {"uve_attribute": self.chance.choice(PATHS)}
        else:
            operand2 = {"json_value": json.dumps(self._constant_for(operation))}
        variables = [self.chance.choice(PATHS)] if self.chance.random() < 0.25 else []
        return {
            "operation": operation,
            "operand1": self.chance.choice(PATHS),
            "operand2": operand2,
            "variables": variables,
        }

    def _constant_for(self, operation: str) -> Any:
        chance = self.chance
        match operation:
            case "range":
                return sorted([chance.randint(-2, 6), chance.randint(-2, 6)])
            case "in" | "not in":
                return [chance.choice([1, 2, "1", "x", None, True]) for _ in range(3)]
            case "size==" | "size!=":
                return chance.randint(0, 3)
            case "==" | "!=":
                return chance.choice([0, 1, 2, 3, None, True, "x", "2", [1], {"x": 1}, 1.5, 0.0])
        return chance.choice([0, 1, 2, 3, 1.5, -1, "x", "2", 0.0, [1, 2]])

    # ---- what comes of it ----------------------------------------------------------------------

    def _publish(self, topic: str, message: Mapping[str, Any]) -> None:
        self.published[topic.partition(":")[2]] = message.get("value")

    async def step(self) -> None:
        """Let something happen, and Alarms look until there is no more to look at."""
        for _ in range(self.chance.choice([1, 1, 3])):
            self.happen()
        if self.chance.random() < 0.3:
            self._take_changed()
        if self.alarms._has_lost_changes():
            self.alarms.look_at_all()
        while await self._has_more_to_look_at():
            pass

    async def _has_more_to_look_at(self) -> bool:
        await self.alarms._evaluate_what_waits()
        return self.alarms.status()["waiting"] > 0 or self.alarms._sweep is not None

    def wrong(self) -> str:
        """What isn't as it has to be, and empty where all is."""
        for key in KEYS:
            shown = self.alarms.registry.alarms(key)
            raised = {alarm["type"]: alarm["alarm_rules"]["or_list"] for alarm in shown}
            expected = self._expected(key)
            if not _are_same(raised, expected):
                return f"{key}: raised is {raised}, expected {expected} of {self.reader.view(key)}"
            published = self.published.get(key)
            if (published["alarms"] if published else []) != shown:
                return f"{key}: published is {published}, but shown is {shown}"
        return ""

    def _expected(self, key: str) -> dict[str, OrList]:
        view = self.reader.view(key)
        if view is None:
            return {}
        held = {rule.rule.name: rule.holds(view) for rule in self.rules if rule.wants(key)}
        return {name: found for name, found in held.items() if found is not None}

    def told(self) -> str:
        """Of what it came, for people."""
        rules = [rule.rule.model_dump(exclude_defaults=True) for rule in self.rules]
        lines = ["rules:", *map(str, rules), "happened last:", *map(str, self.happened)]
        return "\n".join(lines)


def _are_same(raised: dict[str, OrList], expected: dict[str, OrList]) -> bool:
    return raised.keys() == expected.keys() and all(
        is_same(raised[name], found) for name, found in expected.items()
    )


async def live(seed: int) -> int:
    """A life from its beginning to its end; returns how many alarms it had."""
    life = Life(seed)
    count = 0
    try:
        for step in range(STEPS):
            await life.step()
            wrong = life.wrong()
            assert not wrong, f"seed {seed}, step {step}: {wrong}\n{life.told()}"
            count += life.alarms.status()["active"]
    finally:
        life.close()
    return count


def live_all(seeds: range) -> list[int]:
    return [asyncio.run(live(seed)) for seed in seeds]


@pytest.mark.parametrize("share", range(SHARES))
def test_what_is_raised_is_what_a_full_evaluation_finds(share: int) -> None:
    counts = live_all(range(FIRST + share, FIRST + LIVES, SHARES))

    assert sum(counts) > 10 * len(counts)  # or chance does too little


def test_a_rule_that_is_not_evaluated_where_it_should_be_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarms, "_looks_at", lambda rule, structs: structs != {"Q"})

    with pytest.raises(AssertionError, match=r"^seed \d+, step \d+: \S+: raised is"):
        live_all(range(50))
