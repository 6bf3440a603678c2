"""The state of the collector: a thin Python face on the C core in ``csrc/``.

The engine is a pure function of the batches it was given and the clock it was told: it reads no
clock, no socket and no file. Everything that takes time runs without the GIL.
"""

from collectord.engine._core import (
    Engine,
    Outcome,
    ProxyState,
    Speaker,
    partition_of,
)

__all__ = ["Engine", "Outcome", "ProxyState", "Speaker", "partition_of"]
