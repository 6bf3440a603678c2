"""Writes the scripts that fuzz_batch begins with: seeds.py DIRECTORY."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import msgpack

START = 1_700_000_000_000_000
FORWARD, BACK, CONFIGURE, LIST, REMOVE, TAKE, WATCH, FAULT, LET_GO, APPLY = range(10)


def apply(batch: Any) -> bytes:
    body: bytes = batch if isinstance(batch, bytes) else msgpack.packb(batch)
    return struct.pack(">BH", APPLY, len(body)) + body


def clock(seconds: float) -> bytes:
    return struct.pack(">BH", FORWARD if seconds >= 0 else BACK, int(abs(seconds) * 10))


def batch(source: str, *records: list[Any], **fields: Any) -> bytes:
    return apply({"source": source, "records": list(records), **fields})


def scripts() -> dict[str, bytes]:
    watch = bytes([WATCH, 0, 1, WATCH, 1, 1])
    take = bytes([TAKE, 0, 0, TAKE, 1, 1])
    listing = bytes([LIST, 1]) + b"T" + bytes([0xF1])
    values = {"i": 1, "n": -5, "f": 1.5, "t": "text", "l": [1, [2]], "m": {"k": {}}, "z": True}
    live = [
        clock(20) + batch(name, ["T:x", "S", {"a": at, "b": at}], ["U:y", "S", {"a": 1.5}])
        for at in range(6)
        for name in ("one", "two")
    ]
    past: list[Any] = [["T:x", "S", {"a": at}, START - (20 - at) * 60_000_000] for at in range(20)]
    numbered = [
        batch("one", ["T:x", "S", {"a": 1}], epoch=epoch, seq=seq)
        for epoch, seq in [(1, 1), (1, 2), (1, 2), (1, 5), (2, 1), (1, 3)]
    ]
    wide = {f"n{at}": at for at in range(40)}
    long = {"t": "x" * 15, "u": "x" * 16, "v": b"y" * 200}
    bad: list[Any] = [
        ["x", "S", {}],
        ["T:x", "9", {"a": 1}],
        ["T:x", "S", {"a": float("nan")}],
        ["T:x", "S", {"a": 1}, START * 2],
        5,
        ["T:x", "S", {"9": 1}],
        ["T:x", "S", {"a": 2**64 - 1}],
    ]
    removal = batch("one", ["T:x", "S", {"a": None}], ["T:x", "S", {"a": 2}], ["U:y", "S", None])
    return {
        "live": watch + b"".join(live) + take + listing,
        "history": watch + batch("one", *past) + take,
        "numbered": b"".join(numbered),
        "values": batch("one", ["T:v", "V", values], ["T:v", "V", wide], ["T:v", "V", long]),
        "removed": watch
        + live[0]
        + live[1]
        + removal
        + bytes([REMOVE, 0, 0, REMOVE, 1, 0])
        + clock(90)
        + clock(120)
        + take,
        "gone": watch
        + live[0]
        + clock(200)
        + live[1]
        + struct.pack(">BH", LET_GO, 1800)
        + take
        + live[2]
        + struct.pack(">BH", LET_GO, 0)
        + b"".join(numbered),
        "bad": batch("one", *bad),
        "aggtypes": batch("one", aggtypes={"S": {"a": "sum", "b": "append:x"}}, time=START),
        "configured": live[0]
        + bytes([CONFIGURE, 7, 0xFF, 0x3F, 0x55])
        + b"".join(live[2:6])
        + bytes([CONFIGURE, 5, 0x2A, 0x01, 0x04])
        + live[6]
        + bytes([CONFIGURE, 0, 0, 0, 0]),
        "faults": b"".join(bytes([FAULT, n]) + live[n % 4] for n in range(2, 40)),
        "clock": live[0] + clock(-6000) + live[1] + clock(6000) + live[2] + clock(-1) + live[3],
        "malformed": apply(b"\xc1") + apply(b"\x81\xa6source") + apply(b"\x91" * 64) + apply(b""),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in scripts().items():
        (folder / name).write_bytes(script)


if __name__ == "__main__":
    main()
