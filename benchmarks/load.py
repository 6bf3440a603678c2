"""The load that every benchmark uses: 40-character keys, two attributes, both proxied."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from collectord import proxies, wire
from collectord.options import BY_NAME

SOURCE = "compute-1:Compute:contrail-vrouter-agent:0"
TABLE = "ObjectVNTable"
STRUCT = "UveVirtualNetworkAgent"
ATTRIBUTES = ("egress_flow_count", "ingress_flow_count")
SAMPLES = len(ATTRIBUTES)
"""In each record."""
BATCH = 1_000
"""Records in a batch."""
METRICS = proxies.specifications(
    proxies.parse_proxy_list(BY_NAME["DEFAULT.uve_proxy_list"].default)
)
"""The default ``uve_proxy_list``, as ``Engine`` takes it."""


@dataclass(frozen=True)
class Scale:
    """How much is measured; numbers of keys are multiples of ``BATCH``, of series twice that."""

    keys: int = 100_000
    many_keys: int = 1_000_000
    series: int = 1_000_000
    rounds: int = 7
    few_rounds: int = 3
    """Rounds of what takes seconds."""
    messages: int = 400_000
    requests: int = 2_000
    seconds: float = 2.0
    """Length of a round that has no natural end."""
    snapshot_interval: float = 10.0
    devices_per_site: int = 10
    history: int = 86_400
    """Seconds of a network's history."""
    alarms: int = 50
    """Alarms that are waited for in a round."""


QUICK = Scale(
    keys=4_000,
    many_keys=6_000,
    series=8_000,
    rounds=2,
    few_rounds=1,
    messages=4_000,
    requests=50,
    seconds=0.3,
    snapshot_interval=1.0,
    devices_per_site=1,
    history=900,
    alarms=5,
)
"""To see that all of it works; its figures mean nothing."""


def key(number: int) -> str:
    """A key of 40 characters; ``number`` is below a million."""
    return f"{TABLE}:default-domain:demo:{number:06}"


def encoded_records(count: int, *, seed: int, struct: str = STRUCT) -> Iterator[bytes]:
    """A record for each of ``count`` keys, in random order, with small random values."""
    chosen = random.Random(seed)
    numbers = list(range(count))
    chosen.shuffle(numbers)
    for number in numbers:
        attributes = {name: chosen.randrange(100_000) for name in ATTRIBUTES}
        yield wire.encode([key(number), struct, attributes])


def bodies(count: int, *, seed: int, struct: str = STRUCT) -> list[bytes]:
    """The records of batches of 1,000, without the head that ``batch`` puts before them."""
    records = list(encoded_records(count, seed=seed, struct=struct))
    return [b"".join(records[at : at + BATCH]) for at in range(0, count, BATCH)]


def batch(
    body: bytes,
    count: int = BATCH,
    *,
    source: str = SOURCE,
    epoch: int | None = None,
    seq: int | None = None,
) -> bytes:
    """A batch of ``count`` encoded records, numbered where ``epoch`` and ``seq`` are given."""
    return wire.encode_batch_head(source, count, epoch=epoch, seq=seq) + body


def batches(bodies: Sequence[bytes]) -> list[bytes]:
    """Batches that ask for no answer."""
    return [batch(body) for body in bodies]
