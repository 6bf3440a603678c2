"""The command ``collectord``: from the command line to settings to a running collector."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from collectord import __version__, logs
from collectord.options import listing
from collectord.settings import ConfigurationError, load

OK = 0
CONFIGURATION_ERROR = 2
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the collector until it is told to stop, and return the exit code.

    ``argv`` is without the program's name. The code is 0 after a clean stop, 1 for what went wrong
    at run time or was not saved at the end, 2 for a configuration with errors, 3 for saved state
    that can't be used. Of the last two, what is wrong stands on standard error, and nothing was
    started.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    if "--help" in arguments:
        print(listing())
        return OK
    if "--version" in arguments:
        print(f"collectord {__version__}")
        return OK

    # Held back until the collector can follow them: a reload that comes too early must not kill it.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return _start(arguments)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _start(arguments: list[str]) -> int:
    # The listing and the version need no engine.
    from collectord import access, collector
    from collectord.alarms.room import AlarmRoom

    try:
        settings = load(arguments, os.environ, collector.CHECKS)
        if sentences := [*access.check_addresses(settings), *AlarmRoom.check(settings)]:
            raise ConfigurationError(sentences)
        if "--check_config" in arguments:
            print(settings.configuration_file())
            return OK
        logs.setup(settings)
        return collector.run(settings)
    except ConfigurationError as error:
        for sentence in error.errors:
            print(f"collectord: {sentence}", file=sys.stderr)
        return CONFIGURATION_ERROR
