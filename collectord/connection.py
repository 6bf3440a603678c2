"""A client's connection to one of the collector's sockets, and what goes wrong with it.

Queries and the stream share this. What is sent and received over it is theirs.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import zmq

from collectord import wire
from collectord.curve import Curve, Handshakes

AnySocket = TypeVar("AnySocket", bound=zmq.Socket[Any])


class QueryError(Exception):
    """The collector refused a request: ``code`` and ``message`` say why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class NotFound(QueryError):  # noqa: N818
    """No source has told anything of this key."""


class Unauthorised(QueryError):  # noqa: N818
    """The collector refuses this key, or that there is none, or seems to."""


class StaleToken(QueryError):  # noqa: N818
    """The alarm that was to be acknowledged is not raised any more, or was raised anew since."""


class Timeout(TimeoutError):  # noqa: N818
    """The collector did not answer in time, or there is none."""


class Connection(Generic[AnySocket]):
    """A socket that connects to ``address``, and how its handshakes went.

    ``options`` are set before. Raises ValueError for an address that cannot be; the socket is
    closed then.
    """

    def __init__(
        self,
        socket: AnySocket,
        address: str,
        curve: Curve | None,
        options: Sequence[tuple[int, int | bytes]] = (),
    ) -> None:
        self.socket = socket
        self.address = address
        self._handshakes = Handshakes(socket, curve)
        try:
            for option, value in ((zmq.LINGER, 0), *options):
                socket.setsockopt(option, value)
            if curve is not None:
                curve.apply(socket)
            socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ValueError(
                f"cannot connect to {address!r}: {error}; write tcp://<host>:<port>"
            ) from error

    @property
    def events(self) -> zmq.Socket[bytes]:
        """What can be polled together with the socket; ``check`` when it is readable."""
        return self._handshakes.events

    @property
    def refused(self) -> bool:
        """Whether the collector has refused the handshake: only a new connection can go well."""
        return self._handshakes.look() is not None

    @property
    def succeeded(self) -> bool:
        """Whether there was a handshake that went well, as far as ``check`` has seen."""
        return self._handshakes.succeeded

    def check(self) -> None:
        """Raise Unauthorised where the collector has refused the handshake."""
        if refusal := self._handshakes.look():
            raise Unauthorised("unauthorised", f"{self.address} refuses the connection: {refusal}")

    def no_answer(self, timeout: float) -> Timeout | Unauthorised:
        """The error for nothing having come; Unauthorised where the handshake never gets through.

        Of two that differ about keys one closes the connection, and the other may see no more.
        """
        self._handshakes.look()
        message = f"no answer from {self.address} within {timeout:g} s"
        if suspicion := self._handshakes.suspicion():
            return Unauthorised("unauthorised", f"{message}: {suspicion}")
        return Timeout(message)

    def close(self) -> None:
        """Give the socket back."""
        self.socket.close(linger=0)
        self._handshakes.close()


def look_for_refusal(kind: int, address: str, curve: Curve | None, timeout: float) -> None:
    """Connect once, to find out why nothing goes. Raises Unauthorised where that is the reason."""
    with contextlib.suppress(Timeout):
        reach(kind, address, curve, timeout)


def reach(kind: int, address: str, curve: Curve | None, timeout: float) -> None:
    """Connect once, to find out whether anybody is there. Raises Timeout, Unauthorised."""
    with zmq.Context() as context:
        connection = Connection(context.socket(kind), address, curve)
        try:
            end = time.monotonic() + timeout
            while connection.events.poll(milliseconds(end - time.monotonic())):
                connection.check()
                if connection.succeeded:
                    return
            raise connection.no_answer(timeout)
        finally:
            connection.close()


def decoded(body: bytes, address: str) -> Any:
    """The value of a body. Raises QueryError where it is none."""
    try:
        return wire.decode(body)
    except ValueError as error:
        raise stranger(address, body) from error


def stranger(address: str, message: Any) -> QueryError:
    """The error for something that no collector would send."""
    return QueryError(
        "malformed", f"{address} doesn't answer as a collector does: {message!r:.200}"
    )


def milliseconds(seconds: float) -> int | None:
    """For poll, which takes None for ever."""
    return None if seconds == math.inf else max(0, round(seconds * 1000))
