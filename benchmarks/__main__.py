"""``python -m benchmarks [NAME …]``: run the benchmarks and print one table.

Each one's rows are told on standard error as soon as it is done; one that fails costs no other its.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    alarms,
    apply,
    close,
    load,
    memory,
    netops,
    query,
    snapshot,
    stream,
    transport,
)
from benchmarks.report import Report, machine

BENCHMARKS: dict[str, Callable[[Report, load.Scale], None]] = {
    "apply": apply.run,
    "close": close.run,
    "memory": memory.run,
    "transport": transport.run,
    "query": query.run,
    "stream": stream.run,
    "snapshot": snapshot.run,
    "netops": netops.run,
    "alarms": alarms.run,
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
    failed = []
    for name in dict.fromkeys(options.names or BENCHMARKS):
        start = time.monotonic()
        figures = Report()
        try:
            BENCHMARKS[name](figures, load.QUICK if options.quick else load.Scale())
        except Exception:  # noqa: BLE001 - whatever it is, the others' figures are still wanted
            traceback.print_exc()
            failed.append(name)
        print(f"{name}: {time.monotonic() - start:.0f} s\n{figures.table()}", file=sys.stderr)
        report.rows += figures.rows
    print(", ".join(f"{name}: {value}" for name, value in about.items()))
    if options.quick:
        print("A quick run: these figures mean nothing.")
    print(f"\n{report.table()}")
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "rows": report.as_json()}, indent=1))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
