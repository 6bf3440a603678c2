"""HTTP, as far as telling of alarms needs it: JSON is posted to an address.

No redirect is followed, no cookie kept, no proxy asked. Names are looked up beside the event loop,
one look at a time for each address, and neither a server that never answers nor one whose answer
never ends holds up more than its own next attempt.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from urllib.parse import unquote

import httpx

from collectord.alarms.notifiers.delivery import Failed, Refused, Unreachable, within
from collectord.option_types import printable, quoted, without_secrets
from collectord.settings import ConfigurationError, Settings

ANSWER_BYTES = 64 << 10
"""The most of an answer that is read; with a longer one the connection ends."""
TOLD_CHARACTERS = 80
"""Of an answer that refuses, in problems and in the log."""
REASON_CHARACTERS = 200
"""Of what the system or TLS has to say, the same."""
SECRET_CHARACTERS = 4
"""A part of the address that is shorter is taken for no secret that an answer may repeat."""
LOOKED_UP_FOR = 60.0
"""Seconds for which the addresses of a name are taken for true."""
RETRIED = (408, 429)
"""Answers below 500 after which another attempt may do better."""
BODY_SECONDS = 1.0
"""How long the rest of an answer is waited for, when it is known already what the answer is."""
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class Address:
    """Where to post. ``str`` of it is for people: without path and password, for both may be
    secrets."""

    def __init__(self, text: str) -> None:
        """Raises ValueError: what is wrong, what would be right, and no secret."""
        shown = quoted(without_secrets(text))
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, UnicodeError):
            raise ValueError(f"{shown} is not an address; {_RIGHT}") from None
        if url.scheme not in _PORTS or not url.host:
            raise ValueError(f"{shown} is not an address of http or https; {_RIGHT}")
        if url.port is not None and not 0 < url.port < 1 << 16:
            raise ValueError(f"{shown} has a port that there is not; {_RIGHT}")
        if url.fragment:
            raise ValueError(f"{shown} has a fragment; leave out what follows the #")
        self.url = url.copy_with(username=None, password=None)
        self.host = url.raw_host.decode("ascii")
        self.port = url.port or _PORTS[url.scheme]
        self.authorization = _authorization(url)
        self.secrets = _secrets(url, self.authorization)
        """What must not be shown, the longest first."""

    def extended(self, path: str) -> Address:
        """The address of something below this one. Raises ValueError where there can be none."""
        if self.url.query:
            raise ValueError(f"{quoted(str(self))} has a query; leave out what follows the ?")
        below = Address(str(self.url).rstrip("/") + path)
        below.authorization = self.authorization
        below.secrets = self.secrets
        return below

    def __str__(self) -> str:
        return f"{self.url.scheme}://{self.url.netloc.decode('ascii')}"


_PORTS = {"http": 80, "https": 443}
_RIGHT = "write one as http://127.0.0.1:9093 or https://example.com/alarms"


def _authorization(url: httpx.URL) -> str:
    if not url.userinfo:
        return ""
    name, _, password = url.userinfo.decode("ascii").partition(":")
    pair = f"{unquote(name)}:{unquote(password)}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def _secrets(url: httpx.URL, authorization: str) -> tuple[str, ...]:
    """All that may be a secret, as it is written and as it is meant, whole and in pieces."""
    path = url.raw_path.decode("ascii")
    texts = [path, url.userinfo.decode("ascii"), authorization.partition(" ")[2]]
    texts += [piece for text in texts[:2] for piece in re.split("[/?&=;:]", text)]
    meant = {meaning for text in texts for meaning in (text, unquote(text))}
    return tuple(
        sorted((text for text in meant if len(text) >= SECRET_CHARACTERS), key=len, reverse=True)
    )


def addresses(settings: Settings, option: str, path: str = "") -> list[Address]:
    """The addresses of an option, with ``path`` below each. Raises ConfigurationError."""
    found: dict[tuple[str, bytes], Address] = {}
    errors: list[str] = []
    for text in settings.text(option).split():
        try:
            address = Address(text)
            address = address.extended(path) if path else address
        except ValueError as error:
            errors += settings.error(option, str(error)).errors
            continue
        identity = (str(address), address.url.raw_path)
        if identity in found:
            reason = f"{quoted(str(address))} is named twice; leave it out once"
            errors += settings.error(option, reason).errors
        found[identity] = address
    if errors:
        raise ConfigurationError(errors)
    return list(found.values())


class Poster:
    """Posts to one address, a request at a time."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        """Seconds that an attempt may take."""
        self._names = _Names(address.host, address.port)
        # What the system trusts vouches for who answers; without TLS there is nothing to verify.
        self._tls = ssl.create_default_context() if address.url.scheme == "https" else False
        self._transport: httpx.AsyncHTTPTransport | None = None

    async def post(self, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Post a body of JSON. Returns when an answer says that it was taken.

        Raises Unreachable, Failed, Refused.
        """
        try:
            response = await self._send(body, headers or {})
            answer = await self._read(response)
        except BaseException:
            await self.close()  # whatever the connection is in the middle of
            raise
        self._judge(response, answer)

    async def close(self) -> None:
        """End the connection; ``post`` makes another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _send(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """The answer, whose body is still to be read."""
        try:
            return await within(self._timeout, self._send_to_any(body, headers))
        except (asyncio.TimeoutError, httpx.TimeoutException):
            self._names.forget()
            raise Failed(f"there was no answer within {self._timeout:g} s") from None
        except httpx.RemoteProtocolError as error:
            self._names.forget()
            # What it says of that repeats what came, whatever that is.
            raise Failed("it ended the connection, or answers something else than HTTP") from error
        except (httpx.TransportError, OSError) as error:
            self._names.forget()
            raise Failed(f"the connection broke: {_reason(error)}") from error

    async def _send_to_any(self, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
        """The answer of the first of the name's addresses that somebody listens on."""
        hosts = await self._names.addresses()
        reason = ""
        for host in hosts:
            try:
                response = await self._request(host, body, headers, self._timeout / len(hosts))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                reason = reason or _reason(error)
                await self.close()
                continue
            self._names.prefer(host)
            return response
        self._names.forget()
        raise Unreachable(f"it can't be reached: {reason}")

    async def _request(
        self, host: str, body: bytes, headers: Mapping[str, str], patience: float
    ) -> httpx.Response:
        if self._transport is None:
            # Nothing is taken from the environment: what is posted goes to the address itself.
            self._transport = httpx.AsyncHTTPTransport(
                verify=self._tls, trust_env=False, limits=httpx.Limits(max_connections=1)
            )
        url = self._address.url
        sent = {**HEADERS, **headers, "Host": url.netloc.decode("ascii")}
        if self._address.authorization:
            sent["Authorization"] = self._address.authorization
        timeout = dict.fromkeys(("read", "write", "pool"), self._timeout)
        request = httpx.Request(
            "POST",
            url.copy_with(host=host),
            headers=sent,
            content=body,
            extensions={
                "sni_hostname": self._address.host,
                "timeout": {**timeout, "connect": patience},
            },
        )
        return await self._transport.handle_async_request(request)

    async def _read(self, response: httpx.Response) -> bytes:
        """What the answer says, as far as it comes: its status counts in any case."""
        answer = bytearray()
        try:
            await within(min(BODY_SECONDS, self._timeout), _read_into(answer, response))
        except (asyncio.TimeoutError, httpx.TransportError, OSError):
            await self.close()
        if len(answer) > ANSWER_BYTES:
            await self.close()
        return bytes(answer[:ANSWER_BYTES])

    def _judge(self, response: httpx.Response, answer: bytes) -> None:
        """Raises Failed or Refused where the answer does not say that all is well."""
        status = response.status_code
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise Refused(
                f"it answers {status}, a redirect, which is not followed; give the address that "
                "it leads to"
            )
        said = self._told(answer)
        if status >= 500 or status in RETRIED:
            raise Failed(f"it answers {status}{said}")
        raise Refused(f"it answers {status}{said}")

    def _told(self, answer: bytes) -> str:
        """The beginning of an answer, for people, where it is a text that can be printed; many
        answers repeat what they were asked for."""
        text = " ".join(answer.decode("utf-8", "replace").split())
        if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
            return ""
        for secret in self._address.secrets:
            text = text.replace(secret, "...")
        text = text if len(text) <= TOLD_CHARACTERS else f"{text[: TOLD_CHARACTERS - 1]}…"
        return f": {text}" if text else ""


async def _read_into(answer: bytearray, response: httpx.Response) -> None:
    """Read until the end, or until there is more than anybody wants."""
    try:
        async for part in response.aiter_raw():
            answer += part
            if len(answer) > ANSWER_BYTES:
                return
    finally:
        await response.aclose()


def _reason(error: BaseException | None) -> str:
    """What the system, or TLS, said first."""
    reason = str(error) or type(error).__name__
    while error is not None:
        if isinstance(error, OSError) and error.errno and error.strerror:
            # asyncio has words of its own where it can't connect.
            is_systems = not isinstance(error, (socket.gaierror, ssl.SSLError))
            reason = os.strerror(error.errno) if is_systems else error.strerror
        error = error.__cause__ or error.__context__
    return printable(reason)[:REASON_CHARACTERS]


Found = list[str] | Exception
"""What looking up a name came to: addresses, or why there are none."""


class _Names:
    """The numeric addresses of one host.

    A look at a name can take as long as it likes, and cannot be broken off. So each has a thread
    of its own, which nobody waits for at the end, and there is at most one at a time.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._known: list[str] = []
        self._known_until = 0.0
        self._look: asyncio.Future[Found] | None = None
        with contextlib.suppress(ValueError):  # it is a name
            ipaddress.ip_address(host)
            self._known, self._known_until = [host], float("inf")

    async def addresses(self) -> list[str]:
        """The addresses, the one to try first at the front. Raises Unreachable."""
        if not self._known or time.monotonic() > self._known_until:
            if self._look is None:
                self._look = _look_up(self._host, self._port)
            found = await asyncio.shield(self._look)
            self._look = None
            if isinstance(found, Exception):
                raise Unreachable(f"its name can't be looked up: {_reason(found)}") from found
            self._known, self._known_until = found, time.monotonic() + LOOKED_UP_FOR
        return self._known[:]

    def prefer(self, address: str) -> None:
        """Somebody listens there."""
        self._known.sort(key=lambda known: known != address)

    def forget(self) -> None:
        """Nobody was there: look again the next time."""
        if self._known_until != float("inf"):
            self._known = []


def _look_up(host: str, port: int) -> asyncio.Future[Found]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Found] = loop.create_future()

    def look() -> None:
        found: Found
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        except (OSError, UnicodeError) as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(future.set_result, found)

    threading.Thread(target=look, name="collectord-names", daemon=True).start()
    return future
