"""Webhooks: each event is posted as JSON to every address, signed where there is a secret.

A receiver that has the secret checks ``X-Collectord-Signature``, which is ``sha256=`` and the HMAC
of ``X-Collectord-Timestamp``, a dot and the body, in hexadecimal digits. The timestamp, in seconds
since the Unix epoch, is that of the attempt. ``X-Collectord-Delivery`` is the same in all attempts
to tell of one event: who has seen it, has seen the event. It ends with a number that counts up,
so that a gap shows what was given up.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections import Counter

from collectord.alarms.notifiers import message
from collectord.alarms.notifiers.delivery import Event, EventNotifier, Lane, Receiver
from collectord.alarms.notifiers.http import Poster, addresses
from collectord.clock import now
from collectord.descriptors import read_file
from collectord.settings import Settings

ATTEMPTS = 8
"""To tell of one event, as long as the receiver answers, or should."""
SECRET_BYTES = 64 << 10
"""No file with a secret is larger."""
OPTION = "ALARM.webhook"
SECRET_OPTION = "ALARM.webhook_secret_file"  # noqa: S105


def make(settings: Settings, hostname: str) -> EventNotifier:
    """The notifier for the addresses of the settings. Raises ConfigurationError."""
    counters: Counter[str] = Counter()
    posted = addresses(settings, OPTION)
    signature = Signature(_read_secret(settings))
    timeout = settings.seconds("ALARM.timeout")
    lanes = [
        [
            _WebhookLane(
                Receiver("webhook", f"webhook {address}", counters),
                Poster(address, timeout),
                signature,
                hostname,
            )
        ]
        for address in posted
    ]
    return EventNotifier("webhook", lanes, counters, settings.integer("ALARM.queue"))


class Signature:
    """Signs bodies with a secret; without one there are no signatures."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def headers(self, body: bytes, timestamp: int) -> dict[str, str]:
        """The headers of an attempt, at ``timestamp`` seconds since the Unix epoch."""
        headers = {"X-Collectord-Timestamp": str(timestamp)}
        if self._secret:
            signed = str(timestamp).encode() + b"." + body
            digest = hmac.new(self._secret, signed, hashlib.sha256).hexdigest()
            headers["X-Collectord-Signature"] = f"sha256={digest}"
        return headers


class _WebhookLane(Lane):
    def __init__(
        self, receiver: Receiver, poster: Poster, signature: Signature, hostname: str
    ) -> None:
        super().__init__(receiver, ATTEMPTS)
        self._poster = poster
        self._signature = signature
        self._hostname = hostname
        self._life = os.urandom(8).hex()
        """Tells the numbers of this process from those of others."""

    async def _tell_of(self, event: Event) -> None:
        body = message.as_json(event.notification, self._hostname)
        headers = self._signature.headers(body, now() // 1_000_000)
        headers["X-Collectord-Delivery"] = f"{self._life}-{event.number}"
        await self._poster.post(body, headers)

    async def _close(self) -> None:
        await self._poster.close()


def _read_secret(settings: Settings) -> bytes:
    """What bodies are signed with; empty where that is not wanted. Raises ConfigurationError."""
    path = settings.text(SECRET_OPTION)
    if not path:
        return b""
    try:
        content, mode = read_file(path, SECRET_BYTES)
    except OSError as error:
        reason = f"{path!r} cannot be read: {error.strerror}; {_NAMED}"
        raise settings.error(SECRET_OPTION, reason) from None
    secret = content.strip()
    if mode & stat.S_IRWXO:
        reason = f"{path!r} is a secret that everybody can get at; chmod o= it, and take a new one"
        raise settings.error(SECRET_OPTION, reason)
    if not secret or len(content) > SECRET_BYTES:
        reason = f"{path!r} has {len(content)} bytes; {_NAMED}, 1 to {SECRET_BYTES} bytes"
        raise settings.error(SECRET_OPTION, reason)
    return secret


_NAMED = "name a file with the secret, which only this process can read"
