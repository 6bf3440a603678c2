"""What stands before the service: what no request may be, whatever it asks for.

A page in somebody's browser can send requests to this host. It can't send JSON, nor leave out
where it is from, without being asked about by the browser first; and what reaches the service by
another host's name was led here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 1 << 20
"""The longest body that is read."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
"""What this host calls itself: a name that leads here from elsewhere was made up by somebody."""
ANY_ADDRESS = "any IP address"
"""Among names: no name was looked up then, so that nobody can have made it lead here."""


def known_as(host: str, addresses: Sequence[str], allowed: Sequence[str] = ()) -> list[str]:
    """The names of what listens at ``addresses``, which is what ``host`` led to: none but its own
    and those that are ``allowed``.

    What listens at every address of this host can't know what others call all of them by.
    """
    listening = [ipaddress.ip_address(address) for address in addresses]
    if all(address.is_loopback for address in listening):
        own = [*LOOPBACK_NAMES, host, *addresses]
    elif any(address.is_unspecified for address in listening):
        own = ["localhost", socket.gethostname(), socket.getfqdn(), ANY_ADDRESS]
    else:
        own = [host, *addresses]
    return list(dict.fromkeys(_name_or_address(name) for name in [*own, *allowed]))


def refusal(status: int, errors: Sequence[str]) -> JSONResponse:
    """An answer that says why not."""
    return JSONResponse({"error": "; ".join(errors), "errors": list(errors)}, status)


class Guard:
    """Lets requests through to ``app`` that are addressed to one of ``hosts`` (None: to any), which
    ``known_as`` gives, are no other site's, and whose body, if they have one, is JSON of at most
    ``BODY_BYTES``."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None = None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refused := self._stranger(headers):
            await refused(scope, receive, send)
            return
        body = await _body(headers, receive)
        if body is None:
            answer = refusal(
                413, [f"the body is longer than {BODY_BYTES} bytes, which is the most"]
            )
            await answer(scope, receive, send)
        elif body and not _is_json(headers):
            answer = refusal(415, ["the body must come as JSON: Content-Type: application/json"])
            await answer(scope, receive, send)
        else:
            await self._app(scope, _once(body, receive), send)

    def _stranger(self, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._hosts is not None and not _is_known(name := _name(host), self._hosts):
            known = ", ".join(self._hosts)
            return refusal(
                403,
                [
                    f"this is not {name!r:.100}, but known as {known}; if it is to be called that, "
                    "serve it with --allow-host and the name"
                ],
            )
        origin = headers.get("origin")
        if origin is not None and not _is_at(origin, host):
            return refusal(403, ["a page of another site may not ask for this"])
        return None


def _is_known(name: str, hosts: Sequence[str]) -> bool:
    if name in hosts:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return ANY_ADDRESS in hosts


def _name(host: str) -> str:
    """A host without its port."""
    try:
        return _name_or_address(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return ""


def _name_or_address(text: str) -> str:
    """A name or an IP address as they are compared."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text))
    return text.lower() if text != ANY_ADDRESS else text


def _is_at(origin: str, host: str) -> bool:
    """Whether a page of this origin is of this host and port."""
    try:
        return urlsplit(origin).netloc == host != ""
    except ValueError:
        return False


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """All of it, or None where it is too long or never ended."""
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > BODY_BYTES:
        return None
    body: bytes = b""
    more = True
    while more and len(body) <= BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body if len(body) <= BODY_BYTES else None


def _once(body: bytes, receive: Receive) -> Receive:
    """What gives the body, and then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message
