"""The world: an engine at a time, what sources do, the way of messages, life and death."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from collectord.clock import Clock
from collectord.engine import Engine, Outcome

from .account import METRICS, PERIOD, RING, SECOND, Account, WrongError, check
from .disk import Disk, Snapshot
from .source import Source

SOURCE_TIMEOUT = 180 * SECOND
GRACE = 30 * SECOND
QUIET = 5 * SECOND
"""A source that doesn't tell how much it kept counts as caught up so long after it is back."""
LATENESS = 10 * SECOND
BEGINNING = 29_000_000 * PERIOD + 17 * SECOND
HISTORY = 26_000_000
"""The first period of samples of a time long ago."""
SHARED_KEYS = [f"T:shared-{number}" for number in range(4)]


class World:
    """Lives made out of a seed. Raises WrongError where something doesn't hold."""

    def __init__(self, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
        self.chance = random.Random(seed)
        self.counted: Counter[str] = Counter()
        self.say = say
        self.history = self.chance.random() < 0.5
        self.true = BEGINNING
        """Microseconds of the clock that sources have, which is right."""
        self.ahead = 0
        """How far the machine's clock is ahead of it."""
        self.ahead_until = 0
        self.front = HISTORY
        self.disk = Disk(self.chance, self.counted)
        self.awaiting = False
        self.was_long = False
        """The collector was down for longer than a ring of periods takes."""
        self.account = Account()
        self.serial = 0
        self.sources = [
            Source(f"h{number}:Compute:agent:0", tells_newest=self.chance.random() < 0.7)
            for number in range(self.chance.randint(1, 4))
        ]
        self.begin()
        for source in self.sources:
            self.tell(source)
            self.deliver(source, clean=True)
        self.disk.save_all()

    # ---- the story -----------------------------------------------------------------------------

    def live(self, lives: int) -> None:
        """So many lives, and in the end everything is compared."""
        for number in range(lives):
            self.say(f"life {number}: {self.engine.partitions} partitions")
            for _ in range(self.chance.randint(1, 50)):
                self.step()
            for _ in range(100):
                if self.may_crash():
                    self.crash()
                    self.counted["lives"] += 1
                    break
                self.step()
        self.finish()

    def step(self) -> None:
        """A moment passes, and whatever may happen in it."""
        self.pass_time(self.chance.choice((1000, SECOND // 10, SECOND, 2 * SECOND)))
        for source in self.chance.sample(self.sources, len(self.sources)):
            self.let_act(source)
            self.disk.save_some()
        self.let_clock_step()
        if self.chance.random() < 0.05 and not self.awaiting:
            self.pass_a_while()
        if self.chance.random() < 0.2:
            self.expire()
        if self.chance.random() < 0.2:
            self.tell_the_untold()
        if not self.history and self.age() > 90 * SECOND:
            self.disk.save_all()

    def let_act(self, source: Source) -> None:
        if source.silent and self.chance.random() < 0.1:
            source.silent = False
        if source.silent or self.true < source.back_at:
            return
        if source.owes_state and not self.must_hold():
            self.tell_state(source)
        if self.chance.random() < 0.5 and len(source.kept) < 60 and not self.must_hold():
            self.tell(source)
        if source.kept:
            # Who is awaited has to be heard in the end, if only by what it has sent before.
            is_urgent = self.awaiting and self.true - self.born > GRACE - 10 * SECOND
            if is_urgent:
                source.next = min(source.next, source.seq)
            self.deliver(source, clean=is_urgent)
        if source.durable == source.seq and not source.owes_state:
            if self.chance.random() < 0.05:
                source.silent = True
            elif self.chance.random() < 0.03 and not self.must_hold():
                self.begin_epoch(source)

    def must_hold(self) -> bool:
        """After a long time without a collector, what is new would leave behind, by the ring, what
        others kept: where the clock closes periods nothing new is told until that is durable.
        """
        return not self.history and self.was_long and (self.awaiting or self.age() > 4 * PERIOD)

    def begin_epoch(self, source: Source) -> None:
        source.epoch += 1
        source.seq = source.durable = 0
        source.next = 1
        self.tell(source)

    def pass_time(self, span: int) -> None:
        """In it, all that a collector does by itself."""
        self.true += span
        if self.awaiting:
            left = self.engine.settle(self.clock.steady(), QUIET)
            if left and self.true - self.born > GRACE:
                left = self.engine.settle_all()
                check(self.engine.settle(self.clock.steady(), QUIET) == 0, "still awaits somebody")
                left = 0
            self.awaiting = left > 0
        closing = self.clock.closing()
        if not self.history:
            for partition in range(self.engine.partitions):
                self.engine.advance(partition, closing, self.clock.steady())
        self.take_results()

    def pass_a_while(self) -> None:
        """Nobody tells anything for long; what was told has arrived."""
        if not self.history and any(
            source.kept and source.next <= source.seq for source in self.sources
        ):
            return
        if self.ahead:
            return
        for _ in range(self.chance.randint(1, 3)):
            self.pass_time(self.chance.choice((20, 61, 100, 179, 181, 1000, 20_000)) * SECOND)
            self.expire()

    def let_clock_step(self) -> None:
        """The machine's clock is set wrong, for less than a minute if it is set forward."""
        if self.ahead and self.true >= self.ahead_until:
            self.ahead = 0
        elif not self.ahead and self.chance.random() < 0.03:
            self.ahead = self.chance.choice((3600, 86_400, 100, 5, -5, -50)) * SECOND
            self.ahead_until = self.true + self.chance.randrange(55) * SECOND
            self.counted["clock steps"] += 1
            self.say(f"the clock is set by {self.ahead // SECOND} s")

    # ---- telling -------------------------------------------------------------------------------

    def tell(self, source: Source) -> None:
        """A random batch."""
        if self.history and self.chance.random() < 0.3:
            self.move_front()
        self.keep(source, [self.record(source) for _ in range(self.chance.randrange(5))])

    def move_front(self) -> None:
        """What isn't durable has to stay within one ring."""
        oldest = [
            time // PERIOD for source in self.sources if (time := source.oldest()) is not None
        ]
        if all(period > self.front + 1 - RING for period in oldest):
            self.front += 1

    def record(self, source: Source) -> list[Any]:
        key = self.chance.choice([*SHARED_KEYS, f"T:of-{source.name}"])
        time = self.true
        if self.history:
            period = self.front - self.chance.choice((0, 0, 1, RING - 1))
            time = period * PERIOD + self.chance.randrange(PERIOD)
        draw = self.chance.random()
        if draw < 0.1:
            return [key, self.chance.choice("SR"), None, time]
        self.serial += 1
        if draw < 0.3:
            return [key, "R", {"serial": self.serial}, time]
        attributes: dict[str, Any] = {"serial": self.serial, "a": self.chance.randrange(1, 100)}
        if self.chance.random() < 0.5:
            attributes["b"] = self.chance.choice((None, "x", [1, "a text that is kept outside"]))
        return [key, "S", attributes, time]

    def tell_state(self, source: Source) -> None:
        """All that there is, once more; it is told of now."""
        source.owes_state = False
        time = self.front * PERIOD if self.history else self.true
        self.say(f"{source.name} tells all of its state")
        self.counted["states told again"] += 1
        self.keep(
            source,
            [[key, struct, dict(held), time] for (key, struct), held in source.state.items()],
        )

    def keep(self, source: Source, records: list[Any]) -> None:
        """The source's next batch, which enters the account here and nowhere else."""
        source.seq += 1
        first = None
        for key, struct, attributes, time in records:
            held = source.state.setdefault((key, struct), {})
            if attributes is None:
                held.clear()
            else:
                held.update(attributes)
                for name in [name for name, value in held.items() if value is None]:
                    del held[name]
                if "a" in attributes:
                    self.account.take(key, time, attributes["a"])
                    first = time if first is None else min(first, time)
            if not held:
                del source.state[key, struct]
        source.kept[source.seq] = (records, first)
        self.counted["batches"] += 1

    # ---- the way of messages -------------------------------------------------------------------

    def deliver(self, source: Source, *, clean: bool) -> None:
        """Send what is due. Where the clock closes periods, nothing waits for a third attempt."""
        if not clean and not source.waits and self.chance.random() < 0.5:
            self.exchange(source, source.next, clean=False)
            source.waits = not self.history
            if self.history or self.chance.random() < 0.3:
                return
        source.waits = False
        for _ in range(len(source.kept) + 2):
            if source.next > source.seq or not self.exchange(source, source.next, clean=True):
                return

    def exchange(self, source: Source, first: int, *, clean: bool) -> bool:
        """Send a few batches and take their answers; whether it is worth to go on at once."""
        last = min(source.seq, first + self.chance.randint(1, 8))
        if not clean and first > source.seq:
            first = last = source.seq  # once more, for no reason
        numbers = list(range(first, last + 1))
        if not clean:
            numbers = self.mistreat(numbers)
        numbers = [number for number in numbers if number in source.kept]
        if not numbers:
            return False
        goes_on, is_cut = True, False  # a connection that breaks takes all later answers along
        messages = [source.message(number) for number in numbers]
        now, steady = self.clock.wall(), self.clock.steady()
        outcomes = self.engine.apply_many(messages, now, steady)
        self.counted["messages"] += len(messages)
        source.heard = self.true
        self.disk.alive.add(source.name)
        self.take_results()
        for number, outcome in zip(numbers, outcomes, strict=True):
            check(outcome is not None, "a numbered batch is not answered")
            assert outcome is not None
            if not clean and (is_cut := is_cut or self.chance.random() < 0.1):
                self.counted["answers lost"] += 1
                if outcome.expired == number:
                    self.counted["answers lost that told of an expiry"] += 1
                    self.say(f"{source.name} does not hear that it expired, in {number}")
                continue
            goes_on &= self.answer(source, number, outcome)
        return goes_on

    def mistreat(self, numbers: list[int]) -> list[int]:
        """Some are lost, come twice, or change places."""
        numbers = [number for number in numbers if self.chance.random() < 0.8]
        if numbers and self.chance.random() < 0.3:
            numbers.append(self.chance.choice(numbers))
        if self.chance.random() < 0.3:
            self.chance.shuffle(numbers)
        return numbers

    def answer(self, source: Source, number: int, outcome: Outcome) -> bool:
        self.counted[outcome.status] += 1
        if outcome.status == "resync":
            check(
                source.durable <= outcome.last <= source.seq,
                f"{source.name} has {source.durable} durable of {source.seq}, "
                f"and is told to resync: {outcome.last}",
            )
            source.next = outcome.last + 1
            return True
        if outcome.status == "overloaded":
            check(self.awaiting, "overloaded, and nobody is awaited")
            source.next = number
            return False
        check(outcome.status in ("applied", "duplicate"), f"{outcome.status}: {outcome.message}")
        check(outcome.seq == number, f"{outcome.seq} answers {number}")
        check(not outcome.rejected, f"rejected: {outcome.rejected}")
        if outcome.expired and source.expired != (source.epoch, outcome.expired):
            source.expired = source.epoch, outcome.expired
            source.owes_state = True
        source.next = max(source.next, number + 1)
        self.forget(source, outcome.durable)
        return True

    def forget(self, source: Source, durable: int) -> None:
        """The source is told how far it is durable."""
        check(
            source.durable <= durable <= source.seq,
            f"{source.name} had {source.durable} of {source.seq} durable, and has {durable} now",
        )
        for number in range(source.durable + 1, durable + 1):
            del source.kept[number]
        source.durable = durable
        source.next = max(source.next, durable + 1)

    def tell_the_untold(self) -> None:
        names = {row["source"]: (row["seq"], row["durable"]) for row in self.engine.sources()}
        for _, seq, durable in self.engine.untold(self.clock.steady(), SECOND):
            check((seq, durable) in names.values(), f"nobody stands at {seq}, {durable}")

    # ---- what closes, and who goes -------------------------------------------------------------

    def take_results(self) -> None:
        """Every closed period must be whole."""
        for partition in range(self.engine.partitions):
            rows = self.engine.take_results(partition)
            for row in rows:
                key = self.engine.key_name(partition, int(row["key"]))
                name = METRICS["S-a"][int(row["algorithm"])][0]
                self.account.check_result(key, name, row)

    def expire(self) -> None:
        gone = self.engine.expire(self.clock.steady(), SOURCE_TIMEOUT)
        self.take_results()
        for source in self.sources:
            silence = self.true - max(source.heard, self.born)
            if source.name in gone:
                check(not self.disk.is_writing, f"{source.name} goes out of half a snapshot")
                check(silence >= SOURCE_TIMEOUT, f"{source.name} expired after {silence} µs")
                self.disk.alive.discard(source.name)
                self.counted["expired"] += 1
                self.say(f"{source.name} expires at {self.true}")
            elif silence > SOURCE_TIMEOUT + SECOND and not (self.awaiting or self.disk.is_writing):
                rows = {row["source"]: row for row in self.engine.sources()}
                check(
                    source.name not in rows or rows[source.name]["gone"],
                    f"{source.name} is still there after {silence} µs",
                )

    # ---- life and death ------------------------------------------------------------------------

    def partitions_after(self, snapshot: Snapshot) -> int:
        """As many as before, or others.

        With others, a source that expired while the snapshot was made, and then comes back, may
        count twice what only some partitions had of it; so there are none such then.
        """
        before = len(snapshot.partitions)
        if any(source.kept and source.name not in snapshot.alive for source in self.sources):
            return before
        return self.chance.choice((before, 1, 2, 3, 5))

    def begin(self, partitions: int = 3) -> None:
        """A new process: its steady clock begins where the machine's clock stands."""
        self.clock = Clock(
            wall=lambda: (self.true + self.ahead) * 1000, monotonic=lambda: self.true * 1000 + 5
        )
        self.engine = Engine(
            partitions=partitions,
            metrics=METRICS,
            lateness=LATENESS,
            limits={"results": 1 << 16},
            seed=self.chance.randrange(1 << 32),
        )
        self.born = self.true
        self.disk.attach(self.engine, self.clock)

    def age(self) -> int:
        """Of the first sample that is not durable."""
        return self.true - min(
            (time for source in self.sources if (time := source.oldest()) is not None),
            default=self.true,
        )

    def may_crash(self) -> bool:
        """Where the clock closes periods, who kept samples must be awaited afterwards."""
        if self.history:
            return True
        keeping = {source.name for source in self.sources if source.kept}
        is_awaited = all(keeping <= snapshot.alive for snapshot in self.disk.candidates())
        return is_awaited and not self.awaiting and self.age() < 120 * SECOND and not self.ahead

    def crash(self) -> None:
        if self.chance.random() < 0.5 and self.disk.write_and_die():
            self.counted["died before it told"] += 1
            if not self.may_crash():
                self.disk.forget_newest()
        snapshot = self.chance.choice(self.disk.candidates())
        self.disk.bring_back(snapshot)
        self.stay_down()
        self.begin(self.partitions_after(snapshot))
        try:
            self.engine.restore(
                snapshot.head, snapshot.partitions, self.clock.wall(), self.clock.steady()
            )
        except ValueError as error:
            raise WrongError(f"a whole snapshot is not taken: {error}") from error
        self.awaiting = True
        for source in self.sources:
            source.back_at = self.true + self.chance.randrange(0, 20) * SECOND
        self.take_results()

    def stay_down(self) -> None:
        """Nobody listens; sources keep what they measure, or there is nothing to measure.

        Those that are gone don't: nobody awaits them, and what they kept may come too late.
        """
        down = self.chance.choice((0, 1, 5, 60, 170, 190, 4000, 30_000))
        self.say(f"it dies at {self.true}, and is down for {down} s")
        self.was_long = down >= 180
        if not self.was_long:
            for _ in range(down // 15):
                self.true += 15 * SECOND
                for source in self.sources:
                    is_there = source.name in self.disk.alive and not source.silent
                    if is_there and self.chance.random() < 0.5 and len(source.kept) < 60:
                        self.tell(source)
        else:
            self.true += down * SECOND

    # ---- the end -------------------------------------------------------------------------------

    def finish(self) -> None:
        """Everybody comes back, everything becomes durable, and all is compared."""
        self.ahead = 0
        for source in self.sources:
            source.silent = False
        for source in self.sources:
            self.keep(source, [])
        for _ in range(200):
            self.pass_time(SECOND)
            for source in self.sources:
                if source.owes_state and not self.must_hold():
                    self.tell_state(source)
                if source.kept:
                    source.next = min(source.next, source.seq)  # again, to hear what is durable
                    self.deliver(source, clean=True)
            if not self.awaiting:
                self.disk.save_all()
            if all(
                source.durable == source.seq and not source.owes_state for source in self.sources
            ):
                break
        else:
            raise WrongError("what was told never becomes durable")
        self.compare_sources()
        self.compare_records()
        if not self.history:
            self.pass_time(PERIOD + LATENESS)
            self.pass_time(2 * PERIOD)
        self.account.check_all_closed(by_ring=self.history)
        check(self.engine.counters().get("samples_late", 0) == 0, "samples were late")

    def compare_sources(self) -> None:
        rows = {row["source"]: row for row in self.engine.sources()}
        for source in self.sources:
            row = rows[source.name]
            seen = (row["epoch"], row["seq"], row["durable"], row["gone"])
            check(
                seen == (source.epoch, source.seq, source.durable, False),
                f"{source.name} stands at {source.epoch, source.seq, source.durable}: {row}",
            )

    def compare_records(self) -> None:
        """Of every key that anybody told of."""
        expected: dict[tuple[str, str, str], dict[str, Any]] = {
            (key, struct, source.name): held
            for source in self.sources
            for (key, struct), held in source.state.items()
        }
        found = {}
        for key in self.engine.keys(limit=10_000):
            read = self.engine.read(key)
            check(read is not None, f"{key} is listed, and not there")
            assert read is not None
            for struct, name, values in read[0]:
                found[key, struct, name] = values
        for who in sorted(expected.keys() | found.keys()):
            check(
                expected.get(who) == found.get(who),
                f"{who}: {expected.get(who)} is {found.get(who)}",
            )


def live(seed: int, say: Callable[[str], None] = lambda _: None) -> Counter[str]:
    """One world; what was counted in it."""
    world = World(seed, say)
    world.live(world.chance.randint(1, 8))
    world.counted["closed periods"] = world.account.results
    return world.counted
