"""What a simulation reports to, whatever it is; ``targets.py`` is the table of those there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from collectord.netops.block import Block, Simulation


class TargetError(Exception):
    """The target took no more, or there is no such target; says what would help."""


class TargetClosed(TargetError):  # noqa: N818
    """It was closed while somebody waited for it."""


class Target(Protocol):
    """Where blocks go. One thread uses it at a time; ``close`` is for any."""

    @property
    def block_seconds(self) -> float:
        """The longest block that it wants at once."""

    @property
    def trouble(self) -> str:
        """What it has waited for, for long by now; "" where it doesn't."""

    def send(self, simulation: Simulation, block: Block) -> None:
        """Take a block; those of one simulation come in time order. It may wait.

        Raises TargetError where it can't be delivered, TargetClosed after ``close``.
        """

    def flush(self) -> None:
        """Return when all that was sent has arrived. Raises as ``send`` does."""

    def counts(self) -> Mapping[str, int]:
        """What has become of all that was sent; ``rejected`` among it where that can be."""

    def close(self) -> None:
        """Take no more; whoever waits in ``send`` or ``flush`` gets TargetClosed.

        It may be called again, and by several threads at once.
        """
