"""File descriptors: each connection takes some."""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger(__name__)


def allow_descriptors() -> int:
    """Allow this process as many file descriptors as the system lets it; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError) as error:  # some systems have no limit that they would grant
            logger.warning("no more than %d file descriptors: %s", soft, error)
            return soft
    return hard
