"""The wire: batches, requests and replies as they travel, their limits and their error codes.

The one place that knows the protocol (``docs/protocol.md``). Everything is one msgpack value per
message body; a request whose first byte is ``{`` is JSON, and so is its reply. Batches are read in
``csrc/batch.c``, straight from the message's bytes; what is here makes them, and answers them.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:  # clients need the wire, and start faster without the native core and numpy
    from collectord.engine import Outcome

INGEST_PORT = 8086
QUERY_PORT = 8087
STREAM_PORT = 8088

KEY_BYTES = 1024
NAME_BYTES = 128
SOURCE_BYTES = 256
NESTING = 32
REQUEST_BYTES = 1 << 20
"""The largest request that is read."""

PERIOD = 60
"""Seconds of a period of the proxy UVEs."""
RING = 8
"""Periods that a series holds open."""

ALARMS = "UVEAlarms"
"""The struct of a UVE's view that holds its raised alarms."""
ALARM_TOPIC = b"alarm:"
"""What stands before the key in the topics under which alarms are published."""
SEVERITIES = ("critical", "major", "minor")
"""An alarm's severities, by their number."""

Record = Sequence[Any]
"""``[key, struct, attributes]`` or ``[key, struct, attributes, time]``."""


class WireError(ValueError):
    """A request that is refused: ``code`` and ``message`` go to who asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def encode(value: Any) -> bytes:
    """One msgpack value. Raises TypeError, ValueError or OverflowError for what msgpack has not."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def decode(body: bytes, *, unicode_errors: str = "surrogateescape") -> Any:
    """The msgpack value of a message body. Raises ValueError where it is not exactly one.

    A text that is no UTF-8 comes as one that ``encode_view`` writes back, unless
    ``unicode_errors`` is ``strict``: then it is an error.
    """
    try:
        return msgpack.unpackb(body, raw=False, strict_map_key=False, unicode_errors=unicode_errors)
    except msgpack.StackError as error:
        raise ValueError("not one msgpack value: it is nested too deeply") from error
    except msgpack.FormatError as error:
        raise ValueError("not one msgpack value: a byte in it begins no value") from error
    except (ValueError, TypeError) as error:
        # TypeError: a map's key was a list or a map, which Python's dict cannot hold.
        raise ValueError(f"not one msgpack value: {error}") from error


def encode_batch(
    source: str,
    records: Sequence[Record],
    *,
    time: int | None = None,
    epoch: int | None = None,
    seq: int | None = None,
    aggtypes: Mapping[str, Mapping[str, str]] | None = None,
) -> bytes:
    """A batch as it travels."""
    head = encode_batch_head(
        source, len(records), time=time, epoch=epoch, seq=seq, aggtypes=aggtypes
    )
    pack = msgpack.Packer(use_bin_type=True).pack
    return head + b"".join(map(pack, records))


def encode_batch_head(
    source: str,
    count: int,
    *,
    time: int | None = None,
    epoch: int | None = None,
    seq: int | None = None,
    newest: int | None = None,
    aggtypes: Mapping[str, Mapping[str, str]] | None = None,
) -> bytes:
    """All of a batch but its ``count`` records: each one's ``encode(record)`` must follow.

    ``seq`` comes first, so that a broken tail doesn't hide it.
    """
    fields: dict[str, Any] = {
        "seq": seq,
        "epoch": epoch,
        "source": source,
        "newest": newest,
        "time": time,
        "aggtypes": {struct: dict(types) for struct, types in (aggtypes or {}).items()} or None,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    packer = msgpack.Packer(use_bin_type=True)
    head = [packer.pack_map_header(len(given) + 1)]
    head += [packer.pack(item) for field in given.items() for item in field]
    head += [packer.pack("records"), packer.pack_array_header(count)]
    return b"".join(head)


def encode_error(code: str, message: str, seq: int | None = None) -> bytes:
    """The answer to a batch of which nothing was applied."""
    reply: dict[str, Any] = {"error": {"code": code, "message": message}}
    return encode(reply if seq is None else {**reply, "seq": seq})


def encode_outcome(outcome: Outcome) -> bytes:
    """The answer to a batch."""
    if outcome.status == "resync":
        return encode({"resync": outcome.last})
    if outcome.status not in ("applied", "duplicate"):
        return encode_error(outcome.status, outcome.message, outcome.seq)
    reply: dict[str, Any] = {
        "seq": outcome.seq,
        "applied": outcome.applied,
        "durable": outcome.durable,
    }
    if outcome.status == "duplicate":
        reply["duplicate"] = True
    if outcome.expired:
        reply["expired"] = outcome.expired
    if outcome.rejected:
        reply["rejected"] = [list(row) for row in outcome.rejected]
    return encode(reply)


def encode_durable(seq: int, durable: int) -> bytes:
    """What a silent source is told when more of its batches are durable.

    It is the answer that any client knows: that to a batch which was applied before, its last one.
    """
    return encode({"seq": seq, "applied": 0, "durable": durable, "duplicate": True})


def decode_request(body: bytes) -> tuple[dict[str, Any], bool]:
    """A query's request, its texts all good UTF-8, and whether it is JSON. Raises WireError."""
    if len(body) > REQUEST_BYTES:
        raise WireError(
            "too_large", f"the request has {len(body)} bytes; at most {REQUEST_BYTES} are read"
        )
    is_json = body[:1] == b"{"
    try:
        if is_json:
            request = json.loads(body)
            # JSON's escapes can name a lone half of a surrogate pair, which nothing can encode.
            json.dumps(request, ensure_ascii=False).encode()
        else:
            request = decode(body, unicode_errors="strict")
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"the request cannot be read: {error}") from error
    if not isinstance(request, dict):
        raise WireError("malformed", f"a request is a map with op, not {type(request).__name__}")
    return request, is_json


def encode_reply(reply: Mapping[str, Any], is_json: bool) -> bytes:
    """A query's reply, in the language of its request."""
    return encode_json(reply) if is_json else encode_view(reply)


def encode_view(value: Any) -> bytes:
    """msgpack of what sources sent: a text that was no UTF-8 goes out as the bytes it came as."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def encode_json(value: Any) -> bytes:
    """JSON of what sources sent.

    What JSON has no word for is written as text: bytes in base64, ``NaN`` and ``Infinity`` by
    name, a map's key by its JSON.
    """
    return json.dumps(json_value(value), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "replace"
    )


def json_value(value: Any) -> Any:
    """``value`` with only what JSON has."""
    match value:
        case dict():
            return {json_key(key): json_value(item) for key, item in value.items()}
        case list() | tuple() if not isinstance(value, msgpack.ExtType):
            return [json_value(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case None | bool() | int() | float() | str():
            return value
        case msgpack.ExtType():
            return {"type": value.code, "data": base64.b64encode(value.data).decode("ascii")}
        case _:
            return str(value)


def json_key(key: Any) -> str:
    """A map's key as text: a text is itself, anything else is as JSON writes it."""
    if isinstance(key, str):
        return key
    shown = json_value(key)
    return shown if isinstance(shown, str) else json.dumps(shown)
