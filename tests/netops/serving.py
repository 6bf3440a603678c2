"""The service as its users meet it: on real sockets, in a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from collectord.netops.service import Service, listen, server
from daemon import until

DEADLINE = 30.0
NOON = 1_600_000_000
SMALL: dict[str, Any] = {
    "target": "log",
    "deployment": {"num_companies": 1, "num_sites_per_company": 2, "num_devices_per_site": 3},
}
"""Six devices."""


class Served(httpx.Client):
    """A client of the service; a relative URL is one of it."""

    def __init__(self, service: Service, port: int) -> None:
        super().__init__(base_url=f"http://localhost:{port}", timeout=DEADLINE, trust_env=False)
        self.service = service
        self.port = port

    def progress(self) -> Any:
        """How far its run is."""
        return self.get("/").json()["progress"]

    def state(self) -> str:
        state: str = self.get("/").json()["state"]
        return state

    def told(self, path: str, body: Any = None, status: int = 200) -> Any:
        """The answer to a POST that must have this status."""
        answer = self.post(path) if body is None else self.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()


@contextmanager
def served(functions: Mapping[str, str], hosts: Sequence[str] | None = None) -> Iterator[Served]:
    """A service with this table of functions, on a free port of localhost."""
    sockets = listen("localhost", 0)
    port: int = sockets[0].getsockname()[1]
    service = Service(functions)
    there = server(service, hosts=hosts)
    thread = threading.Thread(target=there.run, args=(sockets,))
    thread.start()
    try:
        until(lambda: there.started)
        with Served(service, port) as client:
            yield client
    finally:
        there.should_exit = True
        thread.join(DEADLINE)
        for each in sockets:
            each.close()
    assert not thread.is_alive(), "the service did not end"


def raw(port: int, request: bytes) -> bytes:
    """All that is answered to these bytes until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    return answer


def generate(**changes: Any) -> dict[str, Any]:
    """The body of a request to answer with ten seconds, but for the changes."""
    return {
        "start_timestamp": NOON,
        "end_timestamp": NOON + 10,
        "target": "response",
        **changes,
    }
