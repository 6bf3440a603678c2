"""How hypothesis runs: ``HYPOTHESIS_PROFILE=long`` looks ten times as far, and never twice alike.

There are no deadlines: a slow machine is no bug.
"""

import os
import signal

from hypothesis import HealthCheck, settings

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
