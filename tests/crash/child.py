"""The collector as a child process: started on the same ports each time, and killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import msgpack
import zmq

from .account import PROXY_LIST

ROOT = Path(__file__).parent.parent.parent
SECTIONS = ("COLLECTOR", "QUERY", "STREAM")
START_TIMEOUT = 30.0


class Child:
    """``directory`` holds its snapshots and its log."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.snapshots = directory / "snapshots"
        self.log = directory / "log"
        self.ports = dict(zip(SECTIONS, free_ports(len(SECTIONS)), strict=True))
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = self.log.open("ab")

    def endpoint(self, section: str) -> str:
        return f"tcp://127.0.0.1:{self.ports[section]}"

    def start(self) -> None:
        """Begin a process, and look no further."""
        ports = [f"--{section}.port={port}" for section, port in self.ports.items()]
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "collectord",
                *ports,
                f"--SNAPSHOT.directory={self.snapshots}",
                "--SNAPSHOT.interval=1",
                f"--DEFAULT.uve_proxy_list={PROXY_LIST}",
                "--DEFAULT.uve_proxy_lateness=300",
                *self._options,
            ],
            cwd=ROOT,
            env={name: text for name, text in os.environ.items() if "COLLECTORD_" not in name},
            stdout=self._log,
            stderr=self._log,
        )

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, wherever it stands."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        if (code := self._process.wait()) != -signal.SIGKILL:
            raise RuntimeError(f"the collector ended by itself with {code}: see {self.log}")

    def stop(self) -> None:
        """An orderly end."""
        assert self._process is not None
        self._process.terminate()
        if code := self._process.wait(START_TIMEOUT):
            raise RuntimeError(f"the collector ended with {code}: see {self.log}")

    def close(self) -> None:
        if self.is_alive():
            assert self._process is not None
            self._process.kill()
            self._process.wait()
        self._log.close()

    def files(self) -> set[str]:
        """The names of what is among the snapshots."""
        return {path.name for path in self.snapshots.glob("*")}

    def complaints(self) -> list[str]:
        """What the log says that it must not say."""
        words = ("Traceback", " SYS_CRIT ", "damaged")
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in words)]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, and that the system gives to nobody by itself.

    A publisher that connects again and again to a port of the system's own range, where nobody
    listens, is one day given that very port, and has then connected to itself.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(15_000, 32_000), 1000):
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError("no port is free")


def ask(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, timeout: float, **request: Any
) -> Any:
    """The reply to a query, or None where none comes in ``timeout`` seconds."""
    with context.socket(zmq.DEALER) as asking:
        asking.linger = 0
        asking.connect(endpoint)
        asking.send(msgpack.packb(request))
        if not asking.poll(int(timeout * 1000)):
            return None
        reply = msgpack.unpackb(asking.recv(), strict_map_key=False)
    if not reply["ok"]:
        raise RuntimeError(f"{request} was refused: {reply}")
    return reply


def all_views(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, *, by_source: bool
) -> dict[str, Any]:
    """Every view, page by page."""
    views: dict[str, Any] = {}
    after = ""
    while True:
        reply = ask(
            context,
            endpoint,
            START_TIMEOUT,
            op="find",
            match="*",
            limit=50,
            after=after,
            by_source=by_source,
        )
        if reply is None:
            raise RuntimeError("the collector did not answer a query")
        views |= reply["uves"]
        if "next" not in reply:
            return views
        after = reply["next"]


def await_serving(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
    """Wait until queries are answered."""
    end = time.monotonic() + START_TIMEOUT
    while ask(context, endpoint, 0.1, op="status") is None:
        if time.monotonic() > end:
            raise RuntimeError("the collector did not come up")
