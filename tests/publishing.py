"""What the publisher's tests have in common: records, and publishers that end with the test."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

from collectord.client import Publisher, PublishError
from fake_collector import FakeCollector

PublisherTo = Callable[..., Publisher]

KEY = "ObjectVNTable:demo:vn1"
STRUCT = "UveVirtualNetworkAgent"
SOURCE = "host"
PATIENCE = 20.0
NOWHERE = "tcp://127.0.0.1:1"


@contextlib.contextmanager
def publishers() -> Iterator[PublisherTo]:
    """Makes publishers, without heartbeats unless told, and in the end closes those still open."""
    with contextlib.ExitStack() as made:

        def make(address: str, **settings: Any) -> Publisher:
            publisher = Publisher(SOURCE, address, **{"heartbeat": math.inf, **settings})
            made.callback(close, publisher)
            return publisher

        yield make


def close(publisher: Publisher) -> None:
    with contextlib.suppress(PublishError):  # of what the test left unacknowledged
        publisher.close(timeout=0)


def publish(publisher: Publisher, count: int, first: int = 0, timeout: float | None = None) -> None:
    for value in range(first, first + count):
        publisher.publish(KEY, STRUCT, {"value": value}, timeout=timeout)


def values(collector: FakeCollector) -> list[int]:
    return [attributes["value"] for _, _, attributes in collector.records]
