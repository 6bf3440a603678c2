"""Keys: the files they lie in, and the client's end of a connection that uses them.

A key pair is two files in the format of ZeroMQ's certificates, as czmq and pyzmq write it too:
``NAME.key`` with the public key, and ``NAME.key_secret`` with both. The public file of a client
also says what the client may do, in its ``metadata``:

    metadata
        rights = "send ask watch"
        sources = "compute-1* compute-2*"
    curve
        public-key = "..."

A secret key is in no error, no log line and no ``repr``.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from collectord.descriptors import read_file

RIGHTS = ("send", "ask", "watch")
PUBLIC = ".key"
SECRET = ".key_secret"  # noqa: S105
KEY_LENGTH = 40
"""Characters of a key; 32 bytes in Z85."""
FILE_BYTES = 64 << 10
"""No file with a key is larger."""
SOURCE_PATTERN_BYTES = 256
BROKEN_OFTEN = 3
"""Handshakes that broke off until it's no accident any more."""

_BANNER = {
    PUBLIC: """\
#   ZeroMQ CURVE public certificate, made by collectorctl
#   It is no secret; but who can change it decides what its owner may do.

""",
    SECRET: """\
#   ZeroMQ CURVE **secret** certificate, made by collectorctl
#   Do not give this file to others, and leave it readable for its owner alone.

""",
}
_numbers = itertools.count(1)


class KeyFileError(ValueError):
    """A file is not what it should be: says which, what is wrong, and what would be right."""


@dataclass(frozen=True)
class Certificate:
    """What a key file holds; ``secret`` is None in a public one."""

    path: Path
    public: bytes
    secret: bytes | None = field(repr=False)
    metadata: Mapping[str, str]

    def rights(self) -> frozenset[str]:
        """What the owner may do. Raises KeyFileError where the file doesn't say."""
        words = self.metadata.get("rights", "").split()
        known = " ".join(RIGHTS)
        if not words:
            raise KeyFileError(
                f'{self.path}: says no rights; write rights = "{known}", or fewer, under metadata'
            )
        for word in words:
            if word not in RIGHTS:
                raise KeyFileError(f"{self.path}: unknown right {word!r:.80}; there are {known}")
        return frozenset(words)

    def sources(self) -> tuple[str, ...] | None:
        """Patterns of the sources that the owner may send as; None: all. Raises KeyFileError."""
        if "sources" not in self.metadata:
            return None
        patterns = tuple(self.metadata["sources"].split())
        if not patterns:
            raise KeyFileError(
                f"{self.path}: sources is empty; write the names of sources, where * is any run of "
                "characters, or leave the line out for all"
            )
        for pattern in patterns:
            if len(pattern.encode()) > SOURCE_PATTERN_BYTES:
                raise KeyFileError(
                    f"{self.path}: the source {pattern!r:.80} is longer than a source's name; "
                    f"write at most {SOURCE_PATTERN_BYTES} bytes"
                )
        return patterns


def read_certificate(path: str | Path) -> Certificate:
    """What a key file holds. Raises KeyFileError.

    A file with a secret key that anybody can read is refused: it has to be taken for known.
    """
    path = Path(path)
    try:
        content, mode = read_file(path, FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}; {_MADE_BY}") from None
    if len(content) > FILE_BYTES:
        raise KeyFileError(f"{path}: is too large for a key file; {_MADE_BY}")
    try:
        sections = _sections(content.decode("utf-8-sig"))
    except ValueError:
        raise KeyFileError(f"{path}: is not a ZeroMQ certificate; {_MADE_BY}") from None
    keys = sections.get("curve", {})
    public = _key(path, keys, "public-key")
    if public is None:
        raise KeyFileError(f"{path}: has no public key; {_MADE_BY}")
    secret = _key(path, keys, "secret-key")
    if secret is not None:
        if zmq.curve_public(secret) != public:
            raise KeyFileError(f"{path}: its two keys are no pair; {_MADE_BY}")
        if mode & stat.S_IRWXO:
            raise KeyFileError(
                f"{path}: holds a secret key that everybody can get at; make a new pair if others "
                f"may have read it, and chmod o= {path}"
            )
    return Certificate(path, public, secret, sections.get("metadata", {}))


def read_pair(path: str | Path) -> tuple[bytes, bytes]:
    """The public and the secret key of a file with both. Raises KeyFileError."""
    certificate = read_certificate(path)
    if certificate.secret is None:
        raise KeyFileError(
            f"{path}: has no secret key; name the file of the pair that ends with {SECRET}"
        )
    return certificate.public, certificate.secret


def read_public(path: str | Path) -> Certificate:
    """A file with a public key and no secret one. Raises KeyFileError."""
    certificate = read_certificate(path)
    if certificate.secret is not None:
        raise KeyFileError(
            f"{path}: holds a secret key, which belongs nowhere but to its owner; name the file of "
            f"the pair that ends with {PUBLIC}"
        )
    return certificate


def create_pair(directory: str | Path, name: str, metadata: Mapping[str, str]) -> tuple[Path, Path]:
    """Make a key pair, and return its public and its secret file. Raises KeyFileError.

    No file is overwritten, and nobody else can read the secret one at any moment.
    """
    if not name or name.startswith(".") or "/" in name or not name.isprintable():
        raise KeyFileError(f"{name!r:.80} is no name for a file; write one as compute-1")
    public, secret = zmq.curve_keypair()
    made: list[Path] = []
    for suffix, mode, secrets in [(PUBLIC, 0o644, None), (SECRET, 0o600, secret)]:
        path = Path(directory) / f"{name}{suffix}"
        text = _BANNER[suffix] + _certificate(public, secrets, metadata)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            made.append(path)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            for half in made:
                half.unlink(missing_ok=True)
            advice = "name another directory"
            if error.errno == errno.EEXIST:
                advice = "remove it if nobody uses it any more, or choose another name"
            raise KeyFileError(f"{path}: cannot be made: {error.strerror}; {advice}") from None
    return made[0], made[1]


@dataclass(frozen=True)
class Curve:
    """The keys that a client connects with: its own pair, and the collector's public one.

    >>> keys = Curve.load("compute-1.key_secret", "collector.key")  # doctest: +SKIP
    """

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes

    @classmethod
    def load(cls, key_file: str | Path, server_key_file: str | Path) -> Curve:
        """The keys of the client's secret file and the collector's public file.

        Raises KeyFileError, a ValueError.
        """
        public, secret = read_pair(key_file)
        return cls(public, secret, read_public(server_key_file).public)

    def apply(self, socket: zmq.Socket[Any]) -> None:
        """Make a socket use the keys; before it connects."""
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)


class Handshakes:
    """Notices that a collector refuses the handshake of a client's socket.

    Make it before the socket connects; ``events`` can be polled together with the socket. After a
    refusal libzmq does not connect again: only a new socket does.
    """

    def __init__(self, socket: zmq.Socket[Any], curve: Curve | None) -> None:
        self._curve = curve
        self._broken = 0
        self.refusal: str | None = None
        """Why the collector lets nobody in with these keys, as soon as it is known."""
        address = f"inproc://handshakes-{next(_numbers)}"
        socket.monitor(
            address,
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
        )
        self.succeeded = False
        """Whether there was a handshake that went well."""
        self.events: zmq.Socket[bytes] = socket.context.socket(zmq.PAIR, socket_class=zmq.Socket)
        self.events.linger = 0
        self.events.connect(address)

    def look(self) -> str | None:
        """Take what has been noticed; returns ``refusal``."""
        with contextlib.suppress(zmq.Again):
            while True:
                self._take(parse_monitor_message(self.events.recv_multipart(zmq.DONTWAIT)))
        return self.refusal

    def suspicion(self) -> str | None:
        """What is likely to be wrong with the keys, where no handshake got to its end."""
        if self.succeeded or self._broken < BROKEN_OFTEN:
            return None
        if self._curve is None:
            return "it closes the connection in the handshake, as if it wanted a key"
        return "it closes the connection in the handshake, as if its public key were another one"

    def close(self) -> None:
        """Give back what it took; before the socket is closed, or after."""
        self.events.close()

    def _take(self, event: Mapping[str, Any]) -> None:
        match event["event"], event["value"]:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED, _:
                self.succeeded = True
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH, _:
                self.refusal = "it doesn't let this key in; its file may be missing there, or grant"
                self.refusal += " another right than this"
            case (
                zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
                zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH,
            ):
                wants = "it wants a key, and none was given"
                self.refusal = wants if self._curve is None else "it uses no keys, and one is given"
            case _:
                self._broken += 1


_MADE_BY = "name a file that `collectorctl keygen` made"


def _sections(text: str) -> dict[str, dict[str, str]]:
    """The values of a certificate by section and name. Raises ValueError where it is none."""
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals:
            section = sections.setdefault(name, {})
        elif section is None or not line[0].isspace():
            raise ValueError("a value outside of any section")
        else:
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            section[name] = value[1:-1] if quoted else value
    return sections


def _key(path: Path, keys: Mapping[str, str], name: str) -> bytes | None:
    """The key of that name; errors say nothing of it, since it may be a secret one."""
    if name not in keys:
        return None
    key = keys[name].encode()
    try:
        whole = len(key) == KEY_LENGTH and len(z85.decode(key)) == 32
    except (KeyError, ValueError, struct.error):
        whole = False
    if not whole:
        raise KeyFileError(f"{path}: its {name} is no key; {_MADE_BY}")
    return key


def _certificate(public: bytes, secret: bytes | None, metadata: Mapping[str, str]) -> str:
    lines = ["metadata"]
    if secret is None:
        lines += [f'    {name} = "{value}"' for name, value in metadata.items()]
    lines += ["curve", f'    public-key = "{public.decode()}"']
    if secret is not None:
        lines += [f'    secret-key = "{secret.decode()}"']
    return "\n".join([*lines, ""])


def metadata_of(rights: Sequence[str], sources: Sequence[str]) -> dict[str, str]:
    """What a client's public file says. Raises KeyFileError where a text can't stand there."""
    for pattern in sources:
        if not pattern.isprintable() or not pattern or set(pattern) & set(" \"'"):
            raise KeyFileError(f"{pattern!r:.80} is no source's name; write one as compute-1*")
    granted = " ".join(right for right in RIGHTS if right in rights)
    return {
        **({"rights": granted} if granted else {}),
        **({"sources": " ".join(sources)} if sources else {}),
    }
