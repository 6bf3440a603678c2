"""Access: who may connect to which socket, and for which sources a peer may speak.

The server's side. ``Access`` holds the collector's own key and a table of the keys that clients
have, read from the directory ``SECURITY.client_keys``; ``curve.py`` knows the files. A handshake is
admitted or refused by that table (ZAP, through pyzmq's authenticator). What comes over a connection
that was admitted once is judged by it again, so that a key that is taken out is refused at once.

Without ``SECURITY.server_key`` there are no keys: every peer may do everything, and handshakes are
only counted.
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from zmq.auth.asyncio import AsyncioAuthenticator

from collectord import curve
from collectord.curve import KeyFileError
from collectord.engine import Speaker
from collectord.handshakes import Handshakes
from collectord.settings import ConfigurationError, Settings

log = logging.getLogger(__name__)

RIGHTS = {"ingest": "send", "query": "ask", "stream": "watch"}
"""The right that a peer needs for each of the sockets."""
SECTIONS = {"ingest": "COLLECTOR", "query": "QUERY", "stream": "STREAM"}
NOBODY = Speaker(())
"""Speaks for no source."""


def check_addresses(settings: Settings) -> list[str]:
    """A sentence for each socket that others could reach though there are no keys."""
    if settings.text("SECURITY.server_key") or settings.flag("SECURITY.insecure"):
        return []
    errors: dict[str, str] = {}
    for section in SECTIONS.values():
        name = f"{section}.server"
        if not settings.text(name):
            name = "DEFAULT.hostip"
        address = settings.text(name)
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            errors[name] = (
                f"{settings.setting(name).origin}: {name}: others can reach {address}, and there "
                "are no keys; make some with `collectorctl keygen` and give SECURITY.server_key, "
                "or listen on 127.0.0.1, or write SECURITY.insecure=true to let everybody in"
            )
    return list(errors.values())


@dataclass(frozen=True)
class Client:
    """What the owner of a key may do. ``speaker`` is None where it may send as every source."""

    name: str
    rights: frozenset[str]
    speaker: Speaker | None


Clients = Mapping[str, Client]
"""By public key."""


def read_clients(directory: str | Path) -> Clients:
    """The clients of a directory, a file each. Raises ConfigurationError: all that is wrong."""
    clients: dict[str, Client] = {}
    files: dict[str, Path] = {}
    errors: list[str] = []
    try:
        paths = sorted(path for path in Path(directory).iterdir() if path.suffix == curve.PUBLIC)
    except OSError as error:
        raise ConfigurationError(
            [
                f"{directory}: cannot be read: {error.strerror}; name a directory with the public "
                "key of each client"
            ]
        ) from None
    for path in paths:
        try:
            key, client = _read_client(path)
        except KeyFileError as error:
            errors.append(str(error))
            continue
        if key in files:
            errors.append(f"{path}: has the key that {files[key]} has; remove one of them")
        files[key], clients[key] = path, client
    if errors:
        raise ConfigurationError(errors)
    return clients


def _read_client(path: Path) -> tuple[str, Client]:
    """A client's public key and what it may do. Raises KeyFileError."""
    certificate = curve.read_public(path)
    sources = certificate.sources()
    speaker = None if sources is None else Speaker(sources)
    return certificate.public.decode(), Client(path.stem, certificate.rights(), speaker)


class Access:
    """The keys of one collector, and the handshakes on its sockets.

    Make it in a running event loop, before the sockets; ``close`` it after they are closed. Raises
    ConfigurationError where the key files are not as they should be.
    """

    def __init__(self, settings: Settings, context: zmq.Context[Any]) -> None:
        self.secured = bool(settings.text("SECURITY.server_key"))
        """Whether there are keys. Without them ``speaker`` and ``allows`` mean nothing."""
        self.counters: Counter[str] = Counter(
            refused_unknown_key=0, refused_right=0, requests_unauthorised=0
        )
        self._handshakes = Handshakes(context, self.counters)
        self._secret = b""
        self._clients: Clients = {}
        self._speakers: dict[Any, Speaker | None] = {}
        if self.secured:
            self._secret = _server_key(settings)
            self._take(_clients_of(settings))
            self._authenticator = _Authenticator(self, context)
            self._authenticator.start()

    @property
    def clients(self) -> int:
        """How many keys are known."""
        return len(self._clients)

    def serve_socket(self, socket: zmq.Socket[Any], domain: str) -> None:
        """Guard a socket, one of ``RIGHTS``, before it is bound; count its handshakes."""
        if self.secured:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
            socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
            # Without it, libzmq lets everybody in while nobody answers what ZAP asks.
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._handshakes.follow(socket, domain)

    def reload(self, settings: Settings) -> frozenset[str]:
        """Read the clients' keys again (SIGHUP); returns the rights that some client has lost.

        Raises ConfigurationError, and then all stays as it was.
        """
        if not self.secured:
            return frozenset()
        before = self._clients
        self._take(_clients_of(settings))
        return frozenset(
            right
            for key, client in before.items()
            for right in client.rights
            if not self._may(key, right)
        )

    def speaker(self, frame: zmq.Frame) -> Speaker | None:
        """Who sent a frame of the ingest socket, for ``Engine.apply_many``: not a copied one.

        None may speak for every source; whose key may not send (any more) speaks for none. Safe to
        call from another thread.
        """
        try:
            return self._speakers[frame.get("User-Id")]
        except (KeyError, zmq.ZMQError):
            return NOBODY

    def allows(self, frame: zmq.Frame, domain: str) -> bool:
        """Whether who sent a frame (not a copied one) may use this socket (still)."""
        try:
            allowed = self._may(str(frame.get("User-Id")), RIGHTS[domain])
        except zmq.ZMQError:
            allowed = False
        self.counters["requests_unauthorised"] += not allowed
        return allowed

    def close(self) -> None:
        """Admit nobody any more; after the sockets are closed, before the context ends."""
        if self.secured:
            self._authenticator.stop()
        self._handshakes.close()

    def admits(self, key: str, domain: str, address: str) -> bool:
        """Whether a handshake with that public key is to succeed; counted and told if it isn't."""
        right = RIGHTS.get(domain, "")
        if self._may(key, right):
            return True
        client = self._clients.get(key)
        if client is None:
            self.counters["refused_unknown_key"] += 1
            message = "%s: the handshake of %s is refused: no client has its key, %s"
            self._handshakes.warn(message, domain, address, key)
        else:
            self.counters["refused_right"] += 1
            message = "%s: the handshake of %s is refused: the key of %s gives no right to it"
            self._handshakes.warn(message, domain, address, client.name)
        return False

    def _may(self, key: str, right: str) -> bool:
        client = self._clients.get(key)
        return client is not None and right in client.rights

    def _take(self, clients: Clients) -> None:
        """Each table is replaced as a whole: another thread reads one of them meanwhile."""
        self._clients = clients
        self._speakers = {
            key: client.speaker for key, client in clients.items() if "send" in client.rights
        }


class _Authenticator(AsyncioAuthenticator):
    """pyzmq's authenticator, asking ``Access``, which also wants to know the peer's address."""

    def __init__(self, access: Access, context: zmq.Context[Any]) -> None:
        super().__init__(context, log=log)
        self._access = access
        self._address = ""
        for domain in RIGHTS:
            self.configure_curve_callback(domain, self)

    async def handle_zap_message(self, msg: list[bytes]) -> None:
        self._address = msg[3].decode(errors="replace") if len(msg) > 3 else ""
        await super().handle_zap_message(msg)

    def callback(self, domain: str, key: bytes) -> bool:
        return self._access.admits(key.decode(), domain, self._address)


def _server_key(settings: Settings) -> bytes:
    path = settings.text("SECURITY.server_key")
    try:
        return curve.read_pair(path)[1]
    except KeyFileError as error:
        raise settings.error("SECURITY.server_key", str(error)) from None


def _clients_of(settings: Settings) -> Clients:
    directory = settings.text("SECURITY.client_keys")
    if not directory:
        raise settings.error(
            "SECURITY.client_keys",
            "is empty, so nobody could connect; name a directory with each client's public key",
        )
    return read_clients(directory)
