"""A collector that is started, told to read its files again, and told to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

import msgpack
import pytest
import zmq

from daemon import (
    HISTORY,
    METRIC,
    PERIOD,
    STRUCT,
    Daemon,
    Source,
    new_key,
    new_source,
    receive,
    unpack,
    until,
)

SUM, COUNT = f"AggProxySum-{METRIC}", f"AggProxyCount-{METRIC}"
EWM = f"AggProxySumAnomalyEWM1-{METRIC}"
FLOWS = "egress_flow_count"


class Configuration:
    """A file of options, and the daemon that is told to read it again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *lines: str) -> None:
        self.path.write_text("\n".join(["[DEFAULT]", *lines, ""]))

    def reload(self, daemon: Daemon, *lines: str, says: str = "reloaded") -> str:
        """Write it, let it be read, and give the line of the log that says so."""
        before = len(daemon.log)
        self.write(*lines)
        daemon.signal(signal.SIGHUP)
        return daemon.await_log(says, before)

    def __str__(self) -> str:
        return str(self.path)


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path / "collector.conf")


# ---- stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_exit_code_0_and_no_traceback(number: signal.Signals) -> None:
    with Daemon() as daemon:
        daemon.signal(number)

        assert daemon.wait() == 0
        assert "stopped" in daemon.log[-1]


def test_a_second_signal_while_stopping_changes_nothing() -> None:
    with Daemon() as daemon:
        for _ in range(20):
            daemon.signal(signal.SIGTERM)
            daemon.signal(signal.SIGINT)

        assert daemon.wait() == 0


def test_what_was_sent_before_is_applied_and_acknowledged() -> None:
    with Daemon() as daemon, daemon.source() as source:
        count = 2000
        for seq in range(1, count + 1):
            source.post(source.batch([new_key(), STRUCT, {"a": seq}], epoch=1, seq=seq))
        assert source.answer()["seq"] == 1
        until(lambda: daemon.ask("sources")["sources"][source.name]["seq"] == count)

        daemon.signal(signal.SIGTERM)

        assert daemon.wait() == 0
        assert [source.answer()["seq"] for _ in range(count - 1)] == list(range(2, count + 1))


def test_requests_that_came_before_are_answered() -> None:
    with (
        Daemon() as daemon,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as dealer,
    ):
        dealer.linger = 0
        dealer.connect(daemon.query)
        count = 200
        for _ in range(count):
            dealer.send(msgpack.packb({"op": "menu"}))
        until(lambda: daemon.counter("requests") > 1)

        daemon.signal(signal.SIGTERM)

        assert daemon.wait() == 0
        for _ in range(count):
            (body,) = receive(dealer)
            assert unpack(body)["ok"]


def test_it_stops_though_a_source_never_does() -> None:
    with Daemon() as daemon, flood(daemon.ingest, b"\x82\xa6source\xa1x\xa7records\x90"):
        until(lambda: daemon.counter("batches_applied") > 1000)

        daemon.signal(signal.SIGTERM)

        assert daemon.wait() == 0


def test_it_stops_though_one_who_asks_never_does() -> None:
    with Daemon() as daemon, flood(daemon.query, msgpack.packb({"op": "menu"})):
        until(lambda: daemon.counter("requests") > 1000)

        daemon.signal(signal.SIGTERM)

        assert daemon.wait() == 0


class flood:  # noqa: N801
    """Sends one body, as fast as it goes, for as long as the block lasts."""

    def __init__(self, endpoint: str, body: bytes) -> None:
        self._endpoint, self._body = endpoint, body
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.sndtimeo = 100
            socket.connect(self._endpoint)
            while not self._ended.is_set():
                with contextlib.suppress(zmq.Again):
                    socket.send(self._body)
                    socket.recv(zmq.DONTWAIT)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_it_stops_though_nobody_reads_what_it_publishes() -> None:
    with Daemon() as daemon, daemon.subscribe("") as stream, daemon.source() as source:
        for _ in range(20):
            source.tell(*([new_key(), STRUCT, {"a": b"x" * 1000}] for _ in range(500)))
        assert stream.poll() is not None

        daemon.signal(signal.SIGTERM)

        assert daemon.wait() == 0


def test_its_ports_are_free_again_once_it_has_stopped() -> None:
    with Daemon() as daemon:
        ports = [
            endpoint.rsplit(":")[-1] for endpoint in (daemon.ingest, daemon.query, daemon.stream)
        ]
        with daemon.source() as source:
            source.tell()
    names = ("COLLECTOR", "QUERY", "STREAM")

    with Daemon(
        *(f"--{name}.port={port}" for name, port in zip(names, ports, strict=True))
    ) as again:
        assert again.ask("list")["ok"]


# ---- reading the files again -------------------------------------------------------------------


def test_a_changed_proxy_list_is_taken_on_and_what_stays_keeps_its_state(
    configuration: Configuration,
) -> None:
    configuration.write(f"uve_proxy_list={METRIC}:AggProxySum", "uve_proxy_lateness=300")
    key, end = new_key(), HISTORY + 20 * PERIOD
    with Daemon("--conf_file", str(configuration)) as daemon, daemon.source() as source:
        source.tell(*([key, STRUCT, {FLOWS: 5}, HISTORY + step * PERIOD] for step in range(21)))
        assert daemon.uve(key)[SUM]["value"] == {"value": 5, "staging": 5}

        line = configuration.reload(
            daemon,
            f"uve_proxy_list={METRIC}:AggProxyCount:AggProxySum UveNew-size:AggProxyMax",
            "uve_proxy_lateness=300",
        )

        assert "DEFAULT.uve_proxy_list" in line
        assert daemon.ask("menu")["configured"] == {
            METRIC: ["AggProxyCount", "AggProxySum"],
            "UveNew-size": ["AggProxyMax"],
        }
        source.tell([key, STRUCT, {FLOWS: 3}, end], [key, "UveNew", {"size": 7}, end])
        view = daemon.uve(key)
        assert view[SUM]["value"] == {"value": 5, "staging": 8}
        assert view["AggProxyMax-UveNew-size"]["value"] == {"staging": 7}
        assert COUNT in view


def test_a_detector_that_stays_goes_on_from_step_to_step(configuration: Configuration) -> None:
    configuration.write(f"uve_proxy_list={METRIC}:AggProxySumAnomalyEWM1", "uve_proxy_lateness=0.2")
    key = new_key()
    with Daemon("--conf_file", str(configuration)) as daemon, daemon.source() as source:
        source.tell(*([key, STRUCT, {FLOWS: 5}, HISTORY + step * PERIOD] for step in range(20)))
        until(lambda: daemon.uve(key)[EWM].get("value", {}).get("samples") == 20)

        configuration.reload(
            daemon,
            f"uve_proxy_list={METRIC}:AggProxySum:AggProxySumAnomalyEWM1",
            "uve_proxy_lateness=0.2",
        )

        assert daemon.uve(key)[EWM]["value"]["samples"] == 20
        source.tell([key, STRUCT, {FLOWS: 6}, HISTORY + 20 * PERIOD])
        until(lambda: daemon.uve(key)[EWM]["value"]["samples"] == 21)
        assert daemon.uve(key)[EWM]["value"]["metric"] == 6


def test_a_proxy_uve_that_is_removed_goes_away_and_who_watches_is_told(
    configuration: Configuration,
) -> None:
    configuration.write(f"uve_proxy_list={METRIC}:AggProxySum:AggProxyCount")
    key = new_key()
    with (
        Daemon("--conf_file", str(configuration)) as daemon,
        daemon.source() as source,
        daemon.subscribe(key) as stream,
    ):
        source.tell([key, STRUCT, {FLOWS: 5}])
        stream.until(lambda message: message["struct"] == COUNT)

        configuration.reload(daemon, f"uve_proxy_list={METRIC}:AggProxySum")

        message = stream.until(lambda message: message.get("deleted", False))
        assert message == {"key": key, "struct": COUNT, "deleted": True}
        assert daemon.uve(key).keys() == {STRUCT, SUM}


def test_a_metric_that_is_removed_is_a_plain_attribute_again(configuration: Configuration) -> None:
    configuration.write(f"uve_proxy_list={METRIC}:AggProxySum")
    key = new_key()
    with (
        Daemon("--conf_file", str(configuration)) as daemon,
        daemon.source() as source,
        daemon.subscribe(key) as stream,
    ):
        source.tell([key, STRUCT, {FLOWS: 5}])

        configuration.reload(daemon, "uve_proxy_list=")

        stream.until(lambda message: message == {"key": key, "struct": SUM, "deleted": True})
        assert daemon.uve(key) == {STRUCT: {FLOWS: 5}}
        assert source.tell([key, STRUCT, {FLOWS: float("inf")}])["applied"] == 1
        assert daemon.ask("status")["sizes"]["series"] == 0


def test_a_metric_that_comes_new_counts_samples_from_then_on(configuration: Configuration) -> None:
    configuration.write("uve_proxy_list=")
    key = new_key()
    with Daemon("--conf_file", str(configuration)) as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {FLOWS: 5}])
        assert daemon.uve(key).keys() == {STRUCT}

        configuration.reload(daemon, f"uve_proxy_list={METRIC}:AggProxySum")
        source.tell([key, STRUCT, {FLOWS: 3}])

        assert daemon.uve(key)[SUM]["value"] == {"staging": 3}


def test_what_was_told_outlives_the_reload(configuration: Configuration) -> None:
    configuration.write(f"uve_proxy_list={METRIC}:AggProxySum")
    key = new_key()
    with Daemon("--conf_file", str(configuration)) as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {"a": 1}])

        configuration.reload(daemon, f"uve_proxy_list={METRIC}:AggProxyMax")

        assert daemon.uve(key) == {STRUCT: {"a": 1}}
        assert source.tell([key, STRUCT, {"b": 2}]) == {"seq": 2, "applied": 1, "durable": 0}


def test_a_changed_log_level_is_taken_on(configuration: Configuration) -> None:
    configuration.write("log_level=SYS_NOTICE")
    with Daemon("--conf_file", str(configuration)) as daemon:
        with daemon.subscribe("before"):
            configuration.reload(daemon, "log_level=SYS_DEBUG")
        assert not any(
            "SYS_DEBUG" in line for line in daemon.log[: daemon_line(daemon, "reloaded")]
        )

        with daemon.subscribe("after"):
            assert "SYS_DEBUG" in daemon.await_log("changes are noted")


def daemon_line(daemon: Daemon, text: str) -> int:
    """The number of the first line of the log with ``text``."""
    return next(number for number, line in enumerate(daemon.log) if text in line)


def test_a_changed_lateness_is_taken_on(configuration: Configuration) -> None:
    configuration.write("uve_proxy_lateness=300")
    key = new_key()
    with Daemon("--conf_file", str(configuration)) as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {FLOWS: 5}], time=HISTORY)
        assert daemon.uve(key)[SUM]["value"] == {"staging": 5}

        configuration.reload(daemon, "uve_proxy_lateness=0.1")

        until(lambda: daemon.uve(key)[SUM]["value"] == {"value": 5})


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([f"uve_proxy_list={METRIC}:AggProxyMax Broken"], "'Broken'"),
        ([f"uve_proxy_list={METRIC}:AggProxyMedian"], "'AggProxyMedian'"),
        ([f"uve_proxy_list={METRIC}:AggProxyMax", "log_level=LOUD"], "'LOUD'"),
        ([f"uve_proxy_list={METRIC}:AggProxyMax", "colour=blue"], "colour"),
        ([f"uve_proxy_list={METRIC}:AggProxyMax", "nonsense"], "'nonsense'"),
    ],
    ids=["entry", "algorithm", "another-option", "unknown-option", "no-option"],
)
def test_a_broken_file_is_refused_whole_and_the_old_goes_on(
    configuration: Configuration, lines: list[str], sentence: str
) -> None:
    configuration.write(f"uve_proxy_list={METRIC}:AggProxySum")
    key = new_key()
    with Daemon("--conf_file", str(configuration)) as daemon, daemon.source() as source:
        source.tell([key, STRUCT, {FLOWS: 5}])

        line = configuration.reload(daemon, *lines, says="stays as it was")

        assert "SYS_ERR" in line
        assert f"{configuration}:" in line
        assert sentence in line
        assert daemon.ask("menu")["configured"] == {METRIC: ["AggProxySum"]}
        source.tell([key, STRUCT, {FLOWS: 3}])
        assert daemon.uve(key)[SUM]["value"] == {"staging": 8}


def test_a_file_that_is_gone_is_refused_too(configuration: Configuration) -> None:
    configuration.write(f"uve_proxy_list={METRIC}:AggProxySum")
    with Daemon("--conf_file", str(configuration)) as daemon:
        configuration.path.unlink()

        daemon.signal(signal.SIGHUP)

        assert str(configuration) in daemon.await_log("stays as it was")
        assert daemon.ask("menu")["configured"] == {METRIC: ["AggProxySum"]}


def test_after_a_broken_file_a_good_one_is_taken_on(configuration: Configuration) -> None:
    configuration.write(f"uve_proxy_list={METRIC}:AggProxySum")
    with Daemon("--conf_file", str(configuration)) as daemon:
        configuration.reload(daemon, "uve_proxy_list=Broken", says="stays as it was")

        configuration.reload(daemon, f"uve_proxy_list={METRIC}:AggProxyMax")

        assert daemon.ask("menu")["configured"] == {METRIC: ["AggProxyMax"]}


def test_what_takes_a_restart_is_said_and_not_taken_on(configuration: Configuration) -> None:
    configuration.write("partitions=3")
    with Daemon("--conf_file", str(configuration)) as daemon:
        configuration.reload(daemon, "partitions=7")

        assert "SYS_WARN" in daemon.await_log("DEFAULT.partitions has changed")
        assert daemon.ask("status")["partitions"] == 3


def test_a_reload_without_files_changes_nothing() -> None:
    with Daemon() as daemon:
        daemon.signal(signal.SIGHUP)

        assert "nothing changed" in daemon.await_log("reloaded")


def test_batches_go_on_being_taken_while_files_are_read_again(configuration: Configuration) -> None:
    lists = [
        f"uve_proxy_list={METRIC}:{name}:AggProxySum" for name in ("AggProxyMax", "AggProxyMin")
    ]
    configuration.write(lists[0])
    key = new_key()
    with Daemon("--conf_file", str(configuration)) as daemon:
        name, seq = new_source(), 0
        with Source(daemon.ingest, name) as source:
            for turn in range(10):
                for _ in range(50):
                    seq += 1
                    source.post(source.batch([key, STRUCT, {FLOWS: 1}, HISTORY], epoch=1, seq=seq))
                configuration.reload(daemon, lists[turn % 2])
            assert [source.answer()["applied"] for _ in range(seq)] == [1] * seq
        assert daemon.counter("samples") == seq


def test_one_that_was_stopped_takes_what_waited_for_no_silence() -> None:
    """Stopped for longer than sources may be silent, as a machine that is moved may be."""
    with Daemon("--COLLECTOR.source_timeout=4") as daemon, daemon.source() as source:
        key = new_key()
        source.tell([key, STRUCT, {"a": 1}])
        daemon.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        until(lambda: time.monotonic() > stopped + 5)
        daemon.signal(signal.SIGCONT)
        daemon.await_log("stood still for 5")
        source.tell([key, STRUCT, {"a": 2}])
        assert daemon.uve(key) == {STRUCT: {"a": 2}}
        assert daemon.counter("sources_gone") == 0
