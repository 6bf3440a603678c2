"""File descriptors: how many there may be, as each connection takes some, and small files read."""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat
from pathlib import Path

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


def read_file(path: str | Path, most: int) -> tuple[bytes, int]:
    """What a file holds, and its mode; more than ``most`` bytes are one too many.

    Raises OSError, also for what is no regular file: a pipe in its place stops nobody.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most + 1), mode
    finally:
        os.close(descriptor)
