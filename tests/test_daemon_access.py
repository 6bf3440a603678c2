"""Access, as those meet it who come with a key, with another one, or with none."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from collectord import ctl
from collectord.client import QueryClient, Subscriber, Timeout, Unauthorised
from collectord.curve import RIGHTS, Curve, Handshakes
from daemon import DEADLINE, STRUCT, Daemon, new_key, new_source, poll, run, unpack, until
from keys import Keys

SHORT = 0.2
"""Seconds in which an answer that must never come would have come."""
DOORS = {"ingest": zmq.DEALER, "query": zmq.DEALER, "stream": zmq.SUB}
RIGHT = dict(zip(DOORS, RIGHTS, strict=True))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    keys = Keys(tmp_path_factory.mktemp("keys"))
    for right in RIGHTS:
        keys.admit(f"only-{right}", [right])
    keys.admit("everything")
    keys.admit("compute-1", ["send"], ["compute-1*", "other:*:agent:0"])
    keys.strange()
    return keys


@pytest.fixture(scope="module")
def daemon(keys: Keys) -> Iterator[Daemon]:
    with Daemon(*keys.options) as daemon:
        yield daemon


class Peer:
    """A plain socket of a client, with keys or without."""

    def __init__(self, kind: int, endpoint: str, curve: Curve | None) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(kind)
        if curve is not None:
            curve.apply(self.socket)
        if kind == zmq.SUB:
            self.socket.subscribe(b"")
        self._handshakes = Handshakes(self.socket, curve)
        self.socket.connect(endpoint)

    def enters(self) -> bool:
        """Whether its handshake goes well, as soon as that is known."""

        def known() -> bool:
            handshakes = self._handshakes
            return bool(handshakes.look() or handshakes.succeeded or handshakes.suspicion())

        until(known)
        return self._handshakes.succeeded

    def post(self, source: str, seq: int = 1) -> None:
        """Send a batch with one record."""
        records = [[new_key(), STRUCT, {"a": 1}]]
        batch = {"source": source, "epoch": 1, "seq": seq, "records": records}
        self.socket.send(msgpack.packb(batch))

    def send(self, source: str, seq: int = 1) -> Any:
        """The answer to a batch."""
        self.post(source, seq)
        return self.answer()

    def ask(self, op: str, **fields: Any) -> Any:
        """The reply to a request."""
        self.socket.send(msgpack.packb({"op": op, **fields}))
        return self.answer()

    def answer(self) -> Any:
        frames = poll(self.socket)
        assert frames is not None, "there was no answer"
        return unpack(frames[-1])

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(linger=0)
        self._handshakes.close()
        self._context.term()


def enter(daemon: Daemon, door: str, curve: Curve | None) -> Peer:
    endpoint: str = getattr(daemon, door)
    return Peer(DOORS[door], endpoint, curve)


def counters(daemon: Daemon, keys: Keys) -> dict[str, int]:
    with QueryClient(daemon.query, DEADLINE, curve=keys.of("everything")) as client:
        counters: dict[str, int] = client.status()["counters"]
        return counters


def reads(subscriber: Subscriber) -> bool:
    """Whether there was a change to read."""
    with contextlib.suppress(Timeout):
        subscriber.receive(0.01)
        return True
    return False


def reload(daemon: Daemon, says: str = "reloaded: ") -> str:
    """Have the daemon read its keys again; the line that says what came of it."""
    lines = len(daemon.log)
    daemon.signal(signal.SIGHUP)
    return daemon.await_log(says, lines)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", [*(f"only-{right}" for right in RIGHTS), "everything"])
def test_a_key_opens_the_sockets_that_it_has_the_right_to(
    daemon: Daemon, keys: Keys, name: str, door: str
) -> None:
    with enter(daemon, door, keys.of(name)) as peer:
        assert peer.enters() == (name in ("everything", f"only-{RIGHT[door]}"))


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("key", ["stranger", "of another collector", "none"])
def test_without_a_known_key_there_is_no_way_in_and_no_answer(
    daemon: Daemon, keys: Keys, key: str, door: str, tmp_path: Path
) -> None:
    curve = {
        "stranger": keys.of("stranger"),
        "of another collector": Keys(tmp_path).admit("everything"),
        "none": None,
    }[key]
    with enter(daemon, door, curve) as peer:
        if door == "ingest":
            peer.post(new_source())
        elif door == "query":
            peer.socket.send(msgpack.packb({"op": "status"}))

        assert not peer.enters()
        assert poll(peer.socket, SHORT) is None


def test_who_may_send_ask_and_watch_does(daemon: Daemon, keys: Keys) -> None:
    curve, key, source = keys.of("everything"), new_key(), new_source()
    with (
        Subscriber(key, daemon.stream, connect_timeout=DEADLINE, curve=curve) as changes,
        enter(daemon, "ingest", curve) as peer,
        QueryClient(daemon.query, DEADLINE, curve=curve) as client,
    ):
        until(lambda: client.status()["counters"]["subscriptions"])
        batch = {"source": source, "epoch": 1, "seq": 1, "records": [[key, STRUCT, {"a": 1}]]}
        peer.socket.send(msgpack.packb(batch))

        assert peer.answer()["applied"] == 1
        assert client.get(key) == {STRUCT: {"a": 1}}
        assert changes.receive(DEADLINE).value == {"a": 1}


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("compute-1", True),
        ("compute-12:Compute:agent:0", True),
        ("compute-2", False),
        ("my-compute-1", False),
        ("other:Compute:agent:0", True),
        ("other:Compute:agent:1", False),
    ],
)
def test_a_key_speaks_for_its_sources_alone(
    daemon: Daemon, keys: Keys, source: str, allowed: bool
) -> None:
    before = counters(daemon, keys)["batches_applied"]
    with enter(daemon, "ingest", keys.of("compute-1")) as peer:
        reply = peer.send(source)

    assert reply.get("error", {}).get("code") == (None if allowed else "unauthorised")
    assert counters(daemon, keys)["batches_applied"] == before + allowed


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("stranger", "refused_unknown_key"),
        ("only-ask", "refused_right"),
        ("of another collector", "refused_server_key"),
        ("none", "refused_no_key"),
    ],
)
def test_who_is_refused_is_counted_with_the_reason(
    daemon: Daemon, keys: Keys, key: str, reason: str, tmp_path: Path
) -> None:
    if key == "none":
        curve = None
    elif key == "of another collector":
        curve = Keys(tmp_path).admit("everything")
    else:
        curve = keys.of(key)
    # Of two that differ about keys one closes the connection, and the other may see no more.
    names = [reason, "handshakes_failed"] if key == "none" else [reason, "handshakes_refused"]
    look = any if key == "none" else all
    before = counters(daemon, keys)
    with enter(daemon, "stream", curve):

        def counted() -> bool:
            now = counters(daemon, keys)
            return look(now[name] > before[name] for name in names)

        until(counted)


def test_the_log_names_who_was_refused(keys: Keys, tmp_path: Path) -> None:
    with Daemon(*keys.options) as daemon:
        with enter(daemon, "query", keys.of("stranger")):
            public = keys.of("stranger").public.decode()
            line = daemon.await_log("is refused")
            assert "query: the handshake of 127.0.0.1 is refused" in line
            assert public in line
        with enter(daemon, "ingest", Keys(tmp_path).admit("everything")):
            line = daemon.await_log("the peer has another public key of this collector")
            assert "ingest: the handshake of " in line
        assert not [line for line in daemon.log if " SYS_ERR " in line]


def test_a_key_that_is_taken_away_is_refused_at_once(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    other = keys.admit("other")
    curve = keys.admit("compute-1")
    with (
        Daemon(*keys.options) as daemon,
        enter(daemon, "ingest", curve) as sender,
        enter(daemon, "query", curve) as asker,
        Subscriber("*", daemon.stream, connect_timeout=DEADLINE, curve=curve) as watcher,
        Subscriber("*", daemon.stream, connect_timeout=DEADLINE, curve=other) as still,
        QueryClient(daemon.query, DEADLINE, curve=other) as client,
    ):
        source, key = new_source(), new_key()
        assert sender.send(source, 1)["applied"] == 1
        assert asker.ask("menu")["ok"]

        keys.revoke("compute-1")
        reload(daemon)

        assert sender.send(source, 2)["error"]["code"] == "unauthorised"
        assert asker.ask("menu")["error"]["code"] == "unauthorised"
        with pytest.raises(Unauthorised, match="doesn't let this key in"):
            list(watcher)
        # libzmq subscribes again for a subscriber that reads.
        until(lambda: reads(still) or client.status()["counters"]["subscriptions"])
        with enter(daemon, "ingest", other) as peer:
            batch = {"source": source, "epoch": 2, "seq": 1, "records": [[key, STRUCT, {"a": 2}]]}
            peer.socket.send(msgpack.packb(batch))
            assert peer.answer()["applied"] == 1
        while still.receive(DEADLINE).key != key:
            pass
        assert client.status()["counters"]["requests_unauthorised"] == 1


def test_a_key_that_is_added_is_let_in_after_a_reload(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    with Daemon(*keys.options) as daemon:
        curve = keys.admit("compute-1", ["ask"])
        with QueryClient(daemon.query, DEADLINE, curve=curve) as client:
            with pytest.raises(Unauthorised):
                client.status()

            reload(daemon)

            assert client.status()["version"]


def test_a_broken_file_is_refused_and_all_keys_stay(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    curve = keys.admit("compute-1", ["ask"])
    with (
        Daemon(*keys.options) as daemon,
        QueryClient(daemon.query, DEADLINE, curve=curve) as client,
    ):
        assert client.status()["version"]
        keys.revoke("compute-1")
        (keys.clients / "broken.key").write_text("nonsense")

        line = reload(daemon, "broken.key")

        assert " SYS_ERR " in line
        assert client.status()["version"]


def test_a_collector_without_keys_counts_who_comes_with_one(keys: Keys) -> None:
    with Daemon() as daemon, enter(daemon, "query", keys.of("everything")) as peer:
        assert not peer.enters()
        until(lambda: daemon.counter("refused_no_key") + daemon.counter("handshakes_failed"))
        assert daemon.counter("handshakes_refused") == daemon.counter("refused_no_key")


@pytest.mark.parametrize("option", ["DEFAULT.hostip", "STREAM.server"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_that_others_reach_wants_keys(option: str, address: str) -> None:
    ended = run(f"--{option}={address}")

    assert ended.returncode == 2
    assert f"{option}: others can reach {address}" in ended.stderr
    assert "collectorctl keygen" in ended.stderr
    assert "SECURITY.insecure" in ended.stderr


@pytest.mark.parametrize("with_keys", [True, False])
def test_any_address_will_do_with_keys_or_on_demand(keys: Keys, with_keys: bool) -> None:
    options = keys.options if with_keys else ["--SECURITY.insecure=true"]
    with Daemon("--DEFAULT.hostip=0.0.0.0", *options) as daemon:
        curve = keys.of("everything") if with_keys else None
        address = daemon.query.replace("0.0.0.0", "127.0.0.1")
        with QueryClient(address, DEADLINE, curve=curve) as client:
            assert client.status()["version"]


def test_keys_that_cannot_be_used_are_told_before_anything_starts(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    for name in ("first", "second"):
        (keys.clients / f"{name}.key").write_text("nonsense")

    ended = run(*keys.options)

    assert ended.returncode == 2
    assert ended.stderr.count("has no public key") == 2
    assert run(keys.options[0]).returncode == 2
    missing = run("--SECURITY.server_key=/nowhere/x", keys.options[1])
    assert missing.returncode == 2
    assert "SECURITY.server_key: /nowhere/x: cannot be read" in missing.stderr


def arguments(daemon: Daemon, keys: Keys, name: str) -> list[str]:
    return [
        "--query",
        daemon.query,
        "--ingest",
        daemon.ingest,
        "--stream",
        daemon.stream,
        *(["--key", str(keys.secret_file(name))] if name else []),
        *(["--server_key", str(keys.server)] if name else []),
    ]


def test_collectorctl_comes_with_its_key(
    daemon: Daemon,
    keys: Keys,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = new_key()
    sent = ["send", key, STRUCT, "a=1", "--source", new_source()]
    assert ctl.main([*sent, *arguments(daemon, keys, "only-send")]) == 0
    assert ctl.main(["get", key, *arguments(daemon, keys, "only-ask")]) == 0
    assert ctl.main(["health", *arguments(daemon, keys, "only-ask")]) == 0
    seconds = ["watch", "--seconds", "0.01"]
    assert ctl.main([*seconds, *arguments(daemon, keys, "only-watch")]) == 1
    monkeypatch.setenv("COLLECTORCTL_KEY", str(keys.secret_file("everything")))
    monkeypatch.setenv("COLLECTORCTL_SERVER_KEY", str(keys.server))
    assert ctl.main(["status", *arguments(daemon, keys, "")]) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["watch"], ["send", "T:k", "S", "a=1"]])
@pytest.mark.parametrize("name", ["stranger", ""])
def test_collectorctl_says_that_its_key_is_refused(
    daemon: Daemon,
    keys: Keys,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    name: str,
) -> None:
    assert ctl.main([*command, "--timeout", "1", *arguments(daemon, keys, name)]) == 4

    told = capsys.readouterr().err
    assert ("doesn't let this key in" if name else "want") in told


def test_health_cannot_ask_with_a_wrong_key(
    daemon: Daemon, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["health", *arguments(daemon, keys, "stranger")]) == 2
    assert "doesn't let this key in" in capsys.readouterr().err


def test_connections_that_cannot_be_accepted_are_counted_and_harm_nobody_else() -> None:
    with Daemon() as daemon, contextlib.ExitStack() as flood, QueryClient(daemon.query) as client:
        assert client.status()["counters"]["accepts_failed"] == 0
        limit = len(os.listdir(f"/proc/{daemon.process.pid}/fd")) + 10
        before = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        assert before[0] > limit
        host, _, port = daemon.ingest.removeprefix("tcp://").rpartition(":")
        for _ in range(20):
            flood.enter_context(socket.create_connection((host, int(port)), DEADLINE))

        line = daemon.await_log("no connection can be accepted")
        assert "ingest: " in line
        assert "raise the limit of open files" in line
        for _ in range(5):
            assert client.menu()["menu"]

        flood.close()
        with daemon.source() as source:
            assert source.tell([new_key(), STRUCT, {"a": 1}])["applied"] == 1
        assert client.status()["counters"]["accepts_failed"] > 0
