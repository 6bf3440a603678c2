"""``python -m tests.crash``: see the package."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from .run import Run


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash",
        description="Kill a collector again and again: nothing may be lost, or be there twice.",
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument(
        "--seed",
        type=int,
        default=random.SystemRandom().randrange(1 << 32),
        help="of an earlier run",
    )
    parser.add_argument("--directory", type=Path, help="for snapshots and log, which are kept then")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="collectord-crash-") as temporary:
        directory = options.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        with Run(directory, options.seed, say=lambda line: print(line, flush=True)) as run:
            try:
                right = run.go(options.rounds)
            finally:
                print(f"{run.summary()}\n{time.monotonic() - start:28.0f} s, seed {options.seed}")
                if not options.directory:
                    print("".join(run.child.log.read_text().splitlines(keepends=True)[-30:]))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
