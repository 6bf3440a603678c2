"""The types of options: what makes a value of an option's text, or says what is wrong with it.

And what of a text may be shown to people: on one line, not too long, without secrets. Which option
is of which type says the table in ``options.py``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool
Type: TypeAlias = Callable[[str], Value]
"""Makes a value of an option's text, or raises ValueError: what is wrong, what would be right."""

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
FLAGS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_SIZE = re.compile(r"(?P<number>[0-9]{1,18})\s*(?P<unit>|KiB|MiB|GiB|TiB)", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,15}", re.ASCII)
_ADDRESS = re.compile(_SCHEME.pattern + r"://\S*", re.ASCII)
_HOST_END = re.compile(r"[/?#\\]")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?", re.ASCII)


def printable(text: str) -> str:
    """``text`` on one line: control characters, line ends and the like are written escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def quoted(text: str) -> str:
    """``text`` for an error's sentence, with its middle left out where it is long."""
    return repr(text if len(text) <= 120 else f"{text[:80]} ... {text[-30:]}")


def without_secrets(address: str) -> str:
    """Of an address its scheme, host and port: all that may stand before the host, and what follows
    it, may be secrets. The text may be no address, too."""
    scheme, slashes, rest = address.partition("://")
    if not slashes or not _SCHEME.fullmatch(scheme):
        scheme, slashes, rest = "", "", address
    host = _HOST_END.split(rest, maxsplit=1)[0]
    following = rest[len(host) :]
    if "@" in following:
        # Is it a part of the path, or does a password with a slash stand before it?
        return f"{scheme}{slashes}..."
    host = host.rpartition("@")[2]
    return f"{scheme}{slashes}{host}{following if following == '/' else ''}"


def addresses_shown(text: str) -> str:
    """Words that are addresses, or should be, each without secrets."""
    return " ".join(without_secrets(word.strip("\"'")) for word in text.split())


def text_shown(text: str) -> str:
    """Any text, the addresses in it without secrets."""
    return _ADDRESS.sub(lambda found: without_secrets(found[0]), text)


def one_line(text: str) -> str:
    """Any text of one line."""
    if not text.isprintable():
        raise ValueError(f"{quoted(text)} has control characters or is not UTF-8; leave them out")
    return text


def words(text: str) -> str:
    """Words with one space between them."""
    return " ".join(text.split())


def flag(text: str) -> bool:
    """A switch."""
    try:
        return FLAGS[text.lower()]
    except KeyError:
        raise ValueError(f"{quoted(text)} is neither true nor false; write one of them") from None


def one_of(*names: str) -> Type:
    """One of a few names."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{quoted(text)} is unknown; write one of {', '.join(names)}")
        return text

    return read


def integer(low: int, high: int) -> Type:
    """A whole number from ``low`` to ``high``."""

    def read(text: str) -> int:
        if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
            raise ValueError(f"{quoted(text)} is not a whole number from {low} to {high}")
        return int(text)

    return read


def size(low: int, high: int) -> Type:
    """Bytes from ``low`` to ``high``, written with or without a unit."""

    def read(text: str) -> int:
        found = _SIZE.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{quoted(text)} is not a size; write a whole number of bytes, or of "
                "KiB, MiB, GiB or TiB, as in 16 MiB"
            )
        number = int(found["number"]) * UNITS[found["unit"]]
        if not low <= number <= high:
            raise ValueError(f"{quoted(text)} is out of range; write {low} to {high} bytes")
        return number

    return read


def seconds(low: float, high: float) -> Type:
    """Seconds from ``low`` to ``high``, with or without a fraction."""

    def read(text: str) -> float:
        if not _SECONDS.fullmatch(text) or not low <= float(text) <= high:
            raise ValueError(
                f"{quoted(text)} is not a number of seconds from {low:g} to {high:g}, as in 2.5"
            )
        return float(text)

    return read


def address(text: str) -> str:
    """An address of this host: sockets listen on numbers, not on names."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is not an address; write an IPv4 or IPv6 address of this host, "
            "as 127.0.0.1, or 0.0.0.0 for all of them"
        ) from None
    return text


def address_or_empty(text: str) -> str:
    """An address of this host, or nothing."""
    return address(text) if text else ""


def hostname(text: str) -> str:
    """A host's name; where empty, the one that the system gives."""
    if text and not _HOSTNAME.fullmatch(text):
        raise ValueError(
            f"{quoted(text)} is not a host's name; write letters, digits, '-', '_' and '.', "
            "at most 253, or leave it empty for the name that the system gives"
        )
    return text or socket.gethostname()
