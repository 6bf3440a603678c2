"""Receivers behind TLS: they must be who their address says."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from alarms.telling import Receiver, serving, settled, told, until
from collectord.alarms import notifiers
from collectord.alarms.notification import Notifier

# Of nobody: made for this file, by openssl req -x509 -newkey ec … -days 36500.
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgoVqdiIfVw85k3/LX
Y9AVBwOBl271340x844/vmo7fOShRANCAAQadxeGRz6+DeXWTBzSo4xIrKjMHKHd
UFg7tVwmPTVBzj3MJ6Ks+iGl2dPvykMyBTtwK3SWioS/wQz2OS55OcU0
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUDqOx93xeIzXfpdBjLWFe/HzrxzcwCgYIKoZIzj0EAwIw
FjEUMBIGA1UEAwwLYWxhcm1zLnRlc3QwIBcNMjYxMTIyMDgyNzA1WhgPMjEyNjEw
MjkwODI3MDVaMBYxFDASBgNVBAMMC2FsYXJtcy50ZXN0MFkwEwYHKoZIzj0CAQYI
KoZIzj0DAQcDQgAEGncXhkc+vg3l1kwc0qOMSKyozByh3VBYO7VcJj01Qc49zCei
rPohpdnT78pDMgU7cCt0loqEv8EM9jkueTnFNKNrMGkwHQYDVR0OBBYEFBqVl+dN
mNBF3jz5FUXQ7uD6DGIjMB8GA1UdIwQYMBaAFBqVl+dNmNBF3jz5FUXQ7uD6DGIj
MA8GA1UdEwEB/wQFMAMBAf8wFgYDVR0RBA8wDYILYWxhcm1zLnRlc3QwCgYIKoZI
zj0EAwIDSQAwRgIhAMYszzjBO3FTQKG5MgNUcbS9B96aGkwi3ZSDrlsHV0aOAiEA
hYtOdX4kAa7Y+44VSyWBrx7E3XTHJOdtOkxK7T1zxCs=
-----END CERTIFICATE-----
"""
"""It is that of alarms.test."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_text(CERTIFICATE)
    return path


@pytest.fixture
def tls(tmp_path: Path, certificate: Path) -> ssl.SSLContext:
    """The server's side."""
    key = tmp_path / "key.pem"
    key.write_text(KEY)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is of this machine."""
    look_up = socket.getaddrinfo

    def look(_: Any, *rest: Any, **more: Any) -> Any:
        return look_up("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look)


def telling(host: str, receiver: Receiver) -> Notifier:
    url = f"https://{host}:{receiver.port}"
    (notifier,) = notifiers.build(settled("ALARM.log=false", f"ALARM.webhook={url}"), "h1")
    return notifier


def test_a_receiver_that_somebody_vouches_for_is_told(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def run() -> None:
        async with Receiver(tls=tls) as receiver:
            notifier = telling("alarms.test", receiver)
            async with serving(notifier):
                notifier.notify(told())
                await until(lambda: notifier.counters["webhook_sent"])
            assert receiver.requests[0].headers["host"] == f"alarms.test:{receiver.port}"

    asyncio.run(run())


def test_a_receiver_that_nobody_vouches_for_is_not_told(tls: ssl.SSLContext) -> None:
    problem = asyncio.run(problem_of("alarms.test", tls))
    assert "certificate verify failed" in problem


def test_a_receiver_that_is_another_than_its_address_says_is_not_told(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    for host in ("other.test", "127.0.0.1"):
        assert "certificate verify failed" in asyncio.run(problem_of(host, tls))


async def problem_of(host: str, tls: ssl.SSLContext) -> str:
    async with Receiver(tls=tls) as receiver:
        # What the server's side has to say of it is no matter here.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        notifier = telling(host, receiver)
        async with serving(notifier):
            notifier.notify(told())
            (problem,) = await until(notifier.problems)
        assert not receiver.requests
    return problem
