"""Where random numbers come from: a stream of them for each purpose, all from one seed."""

from __future__ import annotations

import enum

import numpy as np


class Draws(enum.IntEnum):
    """What numbers are drawn for."""

    PLACES = 1
    FAILURES = 2
    PLANNED_ERRORS = 3
    SHAPES = 4
    SERIES = 5
    PEAKS = 6
    NETWORKS = 7
    FLOWS = 8


def generator(seed: int, draws: Draws, *place: int | str) -> np.random.Generator:
    """The stream of a purpose, or one of many that it has, such as that of a metric's name.

    No two of them are the same. The place is a spawn key, since numpy takes zeros at the end of a
    short list of seeds for none, so that the stream of ``[1, 2]`` is that of ``[1, 2, 0]``.
    """
    key = [
        int.from_bytes(part.encode(), "little") if isinstance(part, str) else part for part in place
    ]
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(draws, *key)))
