"""A run: rounds of telling, killing and starting, and what is compared after each."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import zmq

from .account import Account, Difference, Record, differences
from .child import Child, all_views, ask, await_serving
from .publisher import Publisher
from .timeline import Timeline

PUBLISHERS = 4
KEPT = 400
"""Batches of one publisher, not durable yet, from which on it makes no more."""
FLUSH_TIMEOUT = 60.0
TICK = 0.004
"""Seconds between two looks at everything."""
NEW_EPOCH = 0.2
"""The chance that a publisher begins a new epoch after a comparison."""
ORDERLY = 0.1
"""The chance that a collector is asked to end, in place of being killed."""


class Run:
    """``on_restart`` is called while no collector runs. Use it in a ``with`` statement."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        say: Callable[[str], None] = print,
        on_restart: Callable[[Run], None] = lambda _: None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.figures: Counter[str] = Counter()
        self.account = Account()
        self.differences: list[Difference] = []
        self._chance = random.Random(seed)
        self._say = say
        self._on_restart = on_restart
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.child = Child(directory, *options)
        self.publishers = [
            Publisher(
                self._context,
                self.child.endpoint("COLLECTOR"),
                f"host-{number}:Compute:verifier:0",
                self.figures,
            )
            for number in range(PUBLISHERS)
        ]
        self._timeline = Timeline(self._chance, self.publishers)
        self._closed: Counter[str] = Counter()
        self._kills = {
            "while it served": self._serve_a_while,
            "while it wrote": self._until_it_writes,
            "after it wrote": self._until_it_has_written,
            "while it started": self._while_it_starts,
            "soon after it served": self._until_it_serves,
        }

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        for publisher in self.publishers:
            publisher.close()
        self.child.close()
        self._context.destroy(linger=0)

    # ---- the story ------------------------------------------------------------------------------

    def go(self, rounds: int) -> bool:
        """Run so many rounds, or until something is wrong; whether all was right."""
        self.child.start()
        for number in range(1, rounds + 1):
            start = time.monotonic()
            kills = [self._a_kill() for _ in range(self._chance.choice((1, 1, 1, 2, 3)))]
            self._flush()
            if self._is_wrong():
                return False
            self._compare()
            self.figures["rounds"] += 1
            self._say(
                f"round {number}: killed {', '.join(kills)}; {time.monotonic() - start:.1f} s, "
                f"{self.account.records} records, {self.figures['closed periods']} closed periods"
            )
            if self._is_wrong():
                return False
            for publisher in self.publishers:
                if self._chance.random() < NEW_EPOCH:
                    publisher.begin_epoch()
                    self.figures["epochs"] += 1
        self.child.stop()
        return True

    def _a_kill(self) -> str:
        """Tell, until the moment has come; kill, and start again. Returns what moment it was."""
        name = self._chance.choice(list(self._kills))
        if self._chance.random() < ORDERLY:
            name = "orderly"
            self._serve_a_while()
            self.child.stop()
            self.figures["orderly ends"] += 1
        else:
            self._kills[name]()
            self.child.kill()
            self.figures["kills"] += 1
            self.figures[f"killed {name}"] += 1
        self._on_restart(self)
        if self._chance.random() < 0.3:
            self._tell_for(self._chance.uniform(0, 0.5))  # nobody listens
        self.child.start()
        return name

    # ---- moments -------------------------------------------------------------------------------

    def _until_it_serves(self) -> None:
        end = time.monotonic() + FLUSH_TIMEOUT
        while not self._answered():
            self._tick()
            if not self.child.is_alive() or time.monotonic() > end:
                raise RuntimeError(f"the collector does not come up: see {self.child.log}")

    def _serve_a_while(self) -> None:
        self._until_it_serves()
        self._tell_for(self._chance.uniform(0.0, 2.5))

    def _until_it_writes(self) -> None:
        self._until_it_serves()
        self._tell_until(lambda: any(name.endswith(".tmp") for name in self.child.files()))
        if self._chance.random() < 0.5:
            time.sleep(self._chance.uniform(0, 0.004))

    def _until_it_has_written(self) -> None:
        self._until_it_serves()
        before = self.child.files()
        self._tell_until(
            lambda: any(not name.endswith(".tmp") for name in self.child.files() - before)
        )
        if self._chance.random() < 0.5:
            time.sleep(self._chance.uniform(0, 0.004))

    def _while_it_starts(self) -> None:
        self._tell_for(self._chance.uniform(0, 0.7))

    def _answered(self) -> bool:
        reply = ask(self._context, self.child.endpoint("QUERY"), 0.03, op="status")
        return reply is not None

    def _tell_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._tell_until(lambda: time.monotonic() > end)

    def _tell_until(self, has_come: Callable[[], bool]) -> None:
        end = time.monotonic() + 5
        while not has_come() and time.monotonic() < end:
            self._tick()

    # ---- telling -------------------------------------------------------------------------------

    def _tick(self) -> None:
        start = time.monotonic()
        for publisher in self.publishers:
            if self._chance.random() < 0.2 and len(publisher.kept) < KEPT:
                self._tell(publisher, self._timeline.records(publisher.name))
        if self._chance.random() < 0.05 and self._timeline.may_advance():
            begun = self._timeline.advance()
            for publisher in self.publishers:
                if publisher.name in begun:
                    self._tell(publisher, begun[publisher.name])
        for publisher in self.publishers:
            publisher.pump()
        time.sleep(max(0.0, TICK - (time.monotonic() - start)))

    def _tell(self, publisher: Publisher, records: Sequence[Record]) -> None:
        self.account.take(publisher.name, records)
        publisher.keep(records)

    def _flush(self) -> None:
        """Wait until everything is durable, or something is wrong."""
        end = time.monotonic() + FLUSH_TIMEOUT
        while not all(publisher.is_durable for publisher in self.publishers):
            if any(publisher.violations for publisher in self.publishers):
                return
            for publisher in self.publishers:
                publisher.pump()
            time.sleep(TICK)
            if time.monotonic() > end:
                stuck = ", ".join(
                    f"{publisher.name} at {publisher.durable} of {publisher.seq}"
                    for publisher in self.publishers
                )
                raise RuntimeError(f"not durable after {FLUSH_TIMEOUT:g} s: {stuck}")

    # ---- comparing -----------------------------------------------------------------------------

    def _compare(self) -> None:
        endpoint = self.child.endpoint("QUERY")
        await_serving(self._context, endpoint)
        for by_source in (False, True):
            views = all_views(self._context, endpoint, by_source=by_source)
            self.differences += differences(self.account, views, by_source=by_source)
        for key in self.account.periods:
            self._closed[key] = len(self.account.closed(key))
        self.figures["closed periods"] = self._closed.total()
        self.figures["views compared"] += 2 * len(self.account.told_keys())
        self.figures["records"] = self.account.records
        self._compare_sources(endpoint)
        for difference in self.differences:
            self.figures[difference.kind] += 1

    def _compare_sources(self, endpoint: str) -> None:
        reply = ask(self._context, endpoint, FLUSH_TIMEOUT, op="sources")
        for publisher in self.publishers:
            row = reply["sources"].get(publisher.name, {})
            seen = tuple(row.get(name) for name in ("epoch", "seq", "durable"))
            # A source that begins an epoch is known by it as soon as it has sent in it.
            if publisher.seq and seen != (publisher.epoch, publisher.seq, publisher.durable):
                publisher.violations.append(
                    f"{publisher.name} stands at {publisher.epoch, publisher.seq}: {row}"
                )

    def _is_wrong(self) -> bool:
        complaints = self.child.complaints()
        violations = [text for publisher in self.publishers for text in publisher.violations]
        for text in [*map(str, self.differences), *violations, *complaints]:
            self._say(text)
        return bool(self.differences or violations or complaints)

    def summary(self) -> str:
        """The figures, one to a line."""
        always = (
            "rounds",
            "kills",
            "batches",
            "sent",
            "resent",
            "duplicates",
            "records",
            "lost",
            "twice",
            "wrong",
        )
        names = [*always, *sorted(self.figures.keys() - set(always))]
        return "\n".join(f"{name:>28} {self.figures[name]:>12,}" for name in names)
