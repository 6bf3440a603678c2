"""Streams of random numbers: that no two of them are the same."""

from __future__ import annotations

import itertools

import pytest

from collectord.netops.draws import Draws, generator

PLACES: list[tuple[int | str, ...]] = [
    (),
    (0,),
    (0, 0),
    (1,),
    (1, 0),
    (1 << 33,),
    ("load",),
    ("loads",),
    ("flow",),
    (0, "load"),
    (1, "load"),
    ("x" * 127,),
    ("x" * 128,),
]


def first_of(seed: int, draws: Draws, *place: int | str) -> int:
    return int(generator(seed, draws, *place).integers(1 << 63))


def test_no_two_streams_are_the_same() -> None:
    seeds = (0, 1, 4, 1 << 32, (1 << 64) - 1)
    streams = [*itertools.product(seeds, Draws, PLACES)]
    assert len({first_of(seed, draws, *place) for seed, draws, place in streams}) == len(streams)


def test_a_stream_is_the_same_again() -> None:
    assert first_of(7, Draws.SERIES, 3, "load") == first_of(7, Draws.SERIES, 3, "load")


@pytest.mark.parametrize("draws", Draws)
def test_what_a_stream_spawns_is_none_of_another_purpose(draws: Draws) -> None:
    (child,) = generator(0, draws).spawn(1)
    others = {first_of(0, other, 0) for other in Draws if other != draws}
    assert int(child.integers(1 << 63)) not in others
