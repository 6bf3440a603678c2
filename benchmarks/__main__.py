"""``python -m benchmarks [NAME …]``: run the benchmarks and print one table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import apply, close, load, memory, query, stream, transport
from benchmarks.report import Report, machine

BENCHMARKS: dict[str, Callable[[Report, load.Scale], None]] = {
    "apply": apply.run,
    "close": close.run,
    "memory": memory.run,
    "transport": transport.run,
    "query": query.run,
    "stream": stream.run,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure collectord beside plain Python and beside the bare transport.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}; all without it"
    )
    parser.add_argument(
        "--quick", action="store_true", help="see that it works; the figures mean nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    report, about = Report(), machine()
    for name in dict.fromkeys(options.names or BENCHMARKS):
        start = time.monotonic()
        BENCHMARKS[name](report, load.QUICK if options.quick else load.Scale())
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    if options.quick:
        print("A quick run: these figures mean nothing.")
    print(f"\n{report.table()}")
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "rows": report.as_json()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
