"""What the publisher's tests share, and how hypothesis runs.

``HYPOTHESIS_PROFILE=long`` looks ten times as far, and never twice alike. There are no deadlines: a
slow machine is no bug.
"""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from fake_collector import FakeCollector
from publishing import PublisherTo, publishers

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=1000,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
# A shell that runs the tests in its background lets their children ignore Ctrl-C, which some test.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with FakeCollector() as running:
        yield running


@pytest.fixture
def publisher_to() -> Iterator[PublisherTo]:
    with publishers() as make:
        yield make
