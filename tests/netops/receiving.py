"""An HTTP server that receives what it is posted, and answers as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Post:
    """What came."""

    path: str
    headers: dict[str, str]
    body: Any


class Receiver:
    """``posts`` has what came; ``statuses`` the answers to the next ones, 200 after that, each with
    ``headers``.

    While ``is_open`` is not set nobody is answered. With ``pieces`` each answer's body is these,
    for as long as somebody reads.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.connections = 0
        self.posts: list[Post] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.pieces: Callable[[], Iterator[bytes]] | None = None
        self.has_come = threading.Event()
        self.is_open = threading.Event()
        self.is_open.set()
        self.is_over = threading.Event()

    def endless(self) -> Iterator[bytes]:
        """Pieces without an end, as fast as they are taken."""
        while not self.is_over.is_set():
            yield b"more " * 10_000

    def dripping(self) -> Iterator[bytes]:
        """Pieces without an end, a byte now and then."""
        while not self.is_over.wait(0.01):
            yield b"."


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            there.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            there.posts.append(Post(self.path, dict(self.headers), json.loads(body)))
            status = there.statuses.pop(0) if there.statuses else 200
            there.has_come.set()
            there.is_open.wait()
            self.send_response(status)
            for name, value in there.headers.items():
                self.send_header(name, value)
            if there.pieces:
                self.send_header("Connection", "close")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # enough was read
                    self.wfile.writelines(there.pieces())
                return
            answer = b"" if status == 204 else f"said {status}\n".encode()
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        there = Receiver(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield there
        finally:
            there.is_open.set()
            there.is_over.set()
            server.shutdown()
            thread.join()
