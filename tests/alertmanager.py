"""A real Alertmanager, Debian's, as a process of its own on a port that was free.

Nothing that another one on this machine has, a service that Debian started, say, is touched: it has
a directory, a configuration and a port of its own, and no cluster.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from daemon import DEADLINE, until

PROGRAM = "prometheus-alertmanager"
CONFIGURATION = """\
route:
  receiver: nobody
receivers:
  - name: nobody
"""
_ADDRESS = re.compile(r'msg="Listening on" address=(?P<address>\S+)')


def program() -> str:
    """Where it is. The test fails where it is missing."""
    found = shutil.which(PROGRAM)
    if found is None:
        pytest.fail(f"{PROGRAM} is not installed; `apt-get install {PROGRAM}` as .ci/run does it")
    return found


class Alertmanager:
    """One that runs. ``url`` is where it is to be told of alerts."""

    def __init__(self, directory: Path, address: str = "127.0.0.1:0") -> None:
        """``directory`` must be there; what is in it is overwritten."""
        configuration = directory / "alertmanager.yml"
        configuration.write_text(CONFIGURATION)
        self._log = directory / "alertmanager.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program(),
                    f"--config.file={configuration}",
                    f"--storage.path={directory / 'data'}",
                    f"--web.listen-address={address}",
                    "--cluster.listen-address=",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.address = until(self._listening_on)
            self.url = f"http://{self.address}"
            until(self._is_ready)
        except BaseException:
            self.stop()
            raise

    def _listening_on(self) -> str:
        log = self._log.read_text(errors="replace")
        assert self._process.poll() is None, f"Alertmanager ended: {log[-2000:]}"
        found = _ADDRESS.search(log)
        return found["address"] if found else ""

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), self._open("/-/ready") as reply:
            return bool(reply.status == 200)
        return False

    def _open(self, path: str) -> Any:
        return urllib.request.urlopen(f"{self.url}{path}", timeout=DEADLINE)

    def alerts(self, **labels: str) -> list[dict[str, Any]]:
        """The active alerts that have these labels, each as ``GET /api/v2/alerts`` tells it."""
        with self._open("/api/v2/alerts?active=true") as reply:
            alerts = json.load(reply)
        return [alert for alert in alerts if labels.items() <= alert["labels"].items()]

    def alert(self, **labels: str) -> dict[str, Any] | None:
        """The only active alert that has these labels; None where there is none."""
        found = self.alerts(**labels)
        assert len(found) <= 1, found
        return found[0] if found else None

    def stop(self) -> None:
        """End it, at once."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Alertmanager:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


@contextlib.contextmanager
def running(directory: Path, address: str = "127.0.0.1:0") -> Iterator[Alertmanager]:
    """An Alertmanager for as long as this lasts."""
    directory.mkdir(parents=True, exist_ok=True)
    with Alertmanager(directory, address) as alertmanager:
        yield alertmanager
