"""Thousands of lives of a collector, see ``lives/``; a failing seed is told, and lives again.

``LIVES_SEED=<n>`` begins elsewhere, ``LIVES=<n>`` lives as many worlds.
"""

from __future__ import annotations

import logging
import os
from collections import Counter

import pytest

from lives.account import WrongError
from lives.world import World, live

FIRST = int(os.environ.get("LIVES_SEED", "1"))
WORLDS = int(os.environ.get("LIVES", "1200"))
SHARES = 8


@pytest.fixture(autouse=True)
def _no_word_of_clocks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "collectord.clock")


def lived(seed: int) -> Counter[str]:
    """One world; a failure names its seed."""
    try:
        return live(seed)
    except Exception as error:
        raise AssertionError(f"python -m tests.lives {seed}: {error}") from error


@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_happens_nothing_is_lost_and_nothing_is_there_twice(share: int) -> None:
    counted: Counter[str] = Counter()
    for seed in range(FIRST + share, FIRST + WORLDS, SHARES):
        counted += lived(seed)
    print(dict(counted))
    if WORLDS >= 1200:  # it has seen what it is there for
        assert counted["lives"] >= 300
        for name in ("resync", "duplicate", "expired", "clock steps", "died before it told"):
            assert counted[name], name


# ---- it would notice -----------------------------------------------------------------------------


def test_a_batch_that_enters_the_account_and_is_never_sent_is_noticed() -> None:
    with pytest.raises(WrongError):
        lose_one(7)


def lose_one(seed: int) -> None:
    world = World(seed)
    world.step()
    source = world.sources[0]
    records = [["T:shared-0", "S", {"serial": -1, "a": 1}, world.true]]
    world.keep(source, records)
    source.kept[source.seq] = ([], None)
    world.live(2)


def test_a_batch_that_is_applied_twice_is_noticed() -> None:
    world = World(9)
    world.step()
    source = world.sources[0]
    world.keep(source, [["T:shared-0", "S", {"serial": -1, "a": 1}, world.true]])
    records, first = source.kept[source.seq]
    source.kept[source.seq] = (records + records, first)
    with pytest.raises(WrongError):
        world.live(2)
