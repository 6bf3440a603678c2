"""An HTTP server that receives what it is posted, and answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
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
    """``posts`` has what came; ``statuses`` the answers to the next ones, 200 after that.

    While ``is_open`` is not set nobody is answered.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.posts: list[Post] = []
        self.statuses: list[int] = []
        self.has_come = threading.Event()
        self.is_open = threading.Event()
        self.is_open.set()


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            there.posts.append(Post(self.path, dict(self.headers), json.loads(body)))
            status = there.statuses.pop(0) if there.statuses else 200
            there.has_come.set()
            there.is_open.wait()
            answer = b"" if status == 204 else f"said {status}\n".encode()
            self.send_response(status)
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
            server.shutdown()
            thread.join()
