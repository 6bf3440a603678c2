"""The service over HTTP: what it does."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from collectord.netops import collector, targets
from collectord.netops import service as services
from collectord.netops.configuration import Configuration
from collectord.netops.network import simulations
from collectord.netops.run import Run
from collectord.netops.service import listen
from collectord.netops.targets import functions_of
from daemon import Daemon, until
from netops.receiving import Receiver, receiver
from netops.serving import DEADLINE, NOON, SMALL, Served, generate, served

THREADS = 40
"""That requests share, as the framework has it."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with served({"silent": "log", "self": "response", **functions_of()}) as client:
        yield client


@pytest.fixture
def http(shared: Served) -> Iterator[Served]:
    """A service that does nothing, with a small network."""
    shared.told("/configure", SMALL)
    yield shared
    shared.told("/stop")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(targets, "FIRST_PAUSE", 0.001)
    with receiver() as there:
        yield there


def test_it_is_idle_until_it_is_configured() -> None:
    with served({}) as http:
        assert http.get("/").json() == {
            "state": "idle",
            "configured": False,
            "target": None,
            "progress": {
                "values": 0,
                "history_done": 0,
                "history_steps": 0,
                "time": None,
                "rate": 0,
                "seconds_left": None,
                "rejected": 0,
                "trouble": "",
            },
        }
        assert http.get("/sites").json() == []
        for path, body in [("/start", {}), ("/generate", generate())]:
            assert http.told(path, body, 409)["error"] == (
                "it is not configured yet: POST /configure first"
            )


def test_it_listens_wherever_localhost_leads_to() -> None:
    sockets = listen("localhost", 0)
    port = sockets[0].getsockname()[1]
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            "localhost", port, type=socket.SOCK_STREAM
        ):
            with socket.socket(family, socket.SOCK_STREAM) as client:
                client.connect(address)
    finally:
        for each in sockets:
            each.close()


def test_it_does_not_listen_where_another_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        listen("localhost", taken.getsockname()[1])


def test_configured_it_waits_for_the_start(http: Served) -> None:
    answer = http.told("/configure", SMALL)

    assert (answer["state"], answer["configured"], answer["target"]) == ("idle", True, "log")
    assert http.get("/").json() == answer


def test_a_configuration_may_start_at_once(http: Served) -> None:
    answer = http.told("/configure", {**SMALL, "state": "generating"})

    assert answer["state"] in ("priming", "generating")
    until(lambda: http.progress()["values"] > 0)


def test_start_answers_at_once_and_progress_tells_how_far_it_is(http: Served) -> None:
    answer = http.told("/start", {"num_historical_seconds": 600})
    assert answer["state"] in ("priming", "generating")
    assert answer["progress"]["history_steps"] == 600

    until(lambda: http.state() == "generating")
    progress = http.get("/").json()["progress"]
    assert progress["history_done"] == 600
    assert progress["values"] >= 600 * 6 * 2


def test_start_needs_no_body(http: Served) -> None:
    http.told("/start", None)
    until(lambda: http.state() == "generating")


def test_start_may_change_the_interval(http: Served) -> None:
    answer = http.told("/start", {"num_historical_seconds": 600, "interval": 60})
    assert answer["progress"]["history_steps"] == 10


def test_what_runs_is_not_started_again(http: Served) -> None:
    http.told("/start", {})
    assert http.told("/start", {}, 409)["error"] == "it is generating already: POST /stop first"


def test_stop_ends_it_and_it_can_be_started_again(http: Served) -> None:
    http.told("/start", {})
    until(lambda: http.state() == "generating")

    assert http.told("/stop")["state"] == "idle"
    assert http.told("/stop")["state"] == "idle"
    http.told("/start", {})


def test_a_new_configuration_stops_what_runs(http: Served) -> None:
    http.told("/start", {})
    answer = http.told("/configure", SMALL)

    assert answer["state"] == "idle"


def test_a_target_that_fails_is_told(http: Served, server: Receiver) -> None:
    server.statuses = [404]
    http.told("/configure", {**SMALL, "target": f"http://user:secret@127.0.0.1:{server.port}/x"})
    http.told("/start", {"num_historical_seconds": 5})
    until(lambda: http.state() == "failed")

    answer = http.get("/").json()
    assert answer["target"] == f"{server.url}/x"
    assert answer["error"] == f"POST to {server.url}/x: answered with 404 Not Found: said 404"
    http.told("/start", {})
    until(lambda: http.state() == "generating")


def test_a_new_configuration_leaves_nothing_of_a_run_that_failed(
    http: Served, server: Receiver
) -> None:
    server.statuses = [404]
    http.told("/configure", {**SMALL, "target": server.url})
    http.told("/start", {"num_historical_seconds": 5})
    until(lambda: http.state() == "failed")

    answer = http.told("/configure", SMALL)
    assert (answer["state"], answer["progress"]["history_steps"]) == ("idle", 0)
    assert "error" not in answer


def test_a_run_whose_collector_is_not_there_waits_until_it_is_stopped() -> None:
    with served(functions_of("tcp://127.0.0.1:1")) as http:
        http.told("/configure", SMALL | {"target": "function:netops-demo-ingest"})
        http.told("/start", {"num_historical_seconds": 3_600})
        assert http.state() == "priming"
        assert http.told("/stop")["state"] == "idle"


def test_generate_sends_to_a_collector() -> None:
    with (
        Daemon("--DEFAULT.uve_proxy_list=UveSite-throughput:AggProxyCount") as daemon,
        served(functions_of(daemon.ingest)) as http,
    ):
        http.told("/configure", SMALL)
        answer = http.told("/generate", generate(target="function:netops-demo-ingest"))

        assert (answer["steps"], answer["values"], answer["rejected"]) == (10, 10 * 6 * 2, 0)
        (key, _) = daemon.ask("list", table="ObjectSite")["keys"]
        staging = daemon.uve(key)["AggProxyCount-UveSite-throughput"]["value"]["staging"]
        assert staging == 10 * 3


def test_sites_tell_where_the_devices_are(http: Served) -> None:
    sites = http.get("/sites").json()

    (simulation,) = simulations(Configuration.model_validate(SMALL))
    company = simulation.emitters[0].labels["company"]
    assert [site["name"] for site in sites] == [f"{company}/0", f"{company}/1"]
    labels = simulation.emitters[3].labels
    assert sites[1] == {
        "key": f"ObjectSite:{company}/1",
        "name": f"{company}/1",
        "company": company,
        "latitude": labels["latitude"],
        "longitude": labels["longitude"],
        "devices": 3,
    }


def test_generate_answers_with_the_emitters(http: Served) -> None:
    emitters = http.told("/generate", generate())

    (simulation,) = simulations(Configuration.model_validate(SMALL))
    assert list(emitters) == [emitter.id for emitter in simulation.emitters]
    for emitter in emitters.values():
        assert set(emitter) == {"labels", "metrics"}
        assert list(emitter["metrics"]) == ["cpu_utilization", "throughput"]
        for series in emitter["metrics"].values():
            assert set(series) == {"labels", "timestamps", "values", "alerts", "is_error"}
            assert series["timestamps"] == [NOON + step for step in range(10)]
            assert [len(series[name]) for name in ("values", "alerts", "is_error")] == [10] * 3
    assert emitters[simulation.emitters[0].id]["metrics"]["throughput"]["labels"] == {
        "ver": 1,
        "unit": "mbyte_sec",
        "target_type": "gauge",
    }


def test_generate_gives_the_same_answer_twice(http: Served) -> None:
    first = http.post("/generate", json=generate(interval=0.5))
    second = http.post("/generate", json=generate(interval=0.5))

    assert first.status_code == 200
    assert first.content == second.content
    assert "X-Next-Timestamp" not in first.headers


def test_generate_ends_before_the_end(http: Served) -> None:
    (first, *_) = http.told("/generate", generate(interval=4)).values()
    times = first["metrics"]["throughput"]["timestamps"]
    assert times == [NOON, NOON + 4, NOON + 8]


def test_generate_answers_with_so_many_samples_and_where_the_next_is(http: Served) -> None:
    answer = http.post("/generate", json=generate(max_samples_per_metric=4, interval=0.5))

    (first, *_) = answer.json().values()
    assert len(first["metrics"]["throughput"]["values"]) == 4
    assert answer.headers["X-Next-Timestamp"] == str(NOON + 2)


def test_who_goes_on_from_there_gets_the_rest(http: Served) -> None:
    http.told("/configure", {**SMALL, "error_rate": 0.05})
    whole = http.told("/generate", generate(end_timestamp=NOON + 100))
    request, parts = generate(end_timestamp=NOON + 100, max_samples_per_metric=30), []
    while request:
        answer = http.post("/generate", json=request)
        parts.append(answer.json())
        more = answer.headers.get("X-Next-Timestamp")
        request = {**request, "start_timestamp": int(more)} if more else {}

    assert len(parts) == 4
    for name, emitter in whole.items():
        for metric, series in emitter["metrics"].items():
            for member in ("timestamps", "values", "alerts", "is_error"):
                pieces = [part[name]["metrics"][metric][member] for part in parts]
                assert list(itertools.chain(*pieces)) == series[member]


def test_generate_is_one_step_now_to_the_configured_target_unless_told(http: Served) -> None:
    http.told("/configure", {**SMALL, "target": "response"})
    before = time.time()

    (first, *_) = http.told("/generate").values()

    [at] = first["metrics"]["throughput"]["timestamps"]
    assert before - 0.001 <= at <= time.time()


def test_generate_answers_with_a_batch_unless_told(http: Served) -> None:
    http.told("/configure", {**SMALL, "max_samples_per_batch": 3})
    answer = http.post("/generate", json=generate())

    (first, *_) = answer.json().values()
    assert len(first["metrics"]["throughput"]["values"]) == 3
    assert answer.headers["X-Next-Timestamp"] == str(NOON + 3)


def test_a_response_has_a_bound(http: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "RESPONSE_VALUES", 6 * 2 * 5)
    answer = http.post("/generate", json=generate(max_samples_per_metric=1_000))

    assert answer.headers["X-Next-Timestamp"] == str(NOON + 5)


def test_generate_sends_to_a_target_in_parts(http: Served, server: Receiver) -> None:
    answer = http.told("/generate", generate(target=server.url, max_samples_per_metric=4))

    assert answer == {"steps": 10, "values": 10 * 6 * 2, "posts": 3, "retries": 0}
    steps = [
        len(series["timestamps"])
        for post in server.posts
        for emitter in list(post.body.values())[:1]
        for series in list(emitter["metrics"].values())[:1]
    ]
    assert steps == [4, 4, 2]
    whole = http.told("/generate", generate())
    for name, emitter in whole.items():
        values = [
            value
            for post in server.posts
            for value in post.body[name]["metrics"]["throughput"]["values"]
        ]
        assert values == emitter["metrics"]["throughput"]["values"]


def test_a_function_may_be_the_response(http: Served) -> None:
    assert http.told("/generate", generate(target="function:self")) == http.told(
        "/generate", generate()
    )


def test_a_target_that_fails_fails_the_request(http: Served, server: Receiver) -> None:
    server.statuses = [404]
    answer = http.told("/generate", generate(target=server.url), 502)
    assert "answered with 404 Not Found" in answer["error"]
    http.told("/generate", generate(target="log"))


def test_a_collector_that_is_not_there_is_told_as_trouble(
    http: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PATIENCE", 0.05)
    http.told("/configure", {**SMALL, "target": "zmq:tcp://127.0.0.1:1"})
    http.told("/start", {"num_historical_seconds": 60})

    until(lambda: "not acknowledged by tcp://127.0.0.1:1" in http.progress()["trouble"])


def test_generate_sends_nothing_beside_a_run(http: Served) -> None:
    http.told("/start", {})

    error = http.told("/generate", generate(target="log"), 409)["error"]
    assert error == "it is generating by itself: POST /stop first"
    assert http.told("/generate", generate())


def test_nothing_begins_while_a_request_sends(http: Served, server: Receiver) -> None:
    server.is_open.clear()
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(http.told("/generate", generate(target=server.url)))
    )
    thread.start()
    try:
        assert server.has_come.wait(10)
        for path, body in [
            ("/start", {}),
            ("/configure", SMALL),
            ("/generate", generate(target="log")),
        ]:
            assert "still sending" in http.told(path, body, 409)["error"]
    finally:
        server.is_open.set()
        thread.join(10)
    assert answers[0]["steps"] == 10


def test_the_end_of_the_service_ends_requests_and_runs(server: Receiver) -> None:
    server.is_open.clear()
    answers: list[Any] = []
    with served({}) as http:
        http.told("/configure", SMALL)
        thread = threading.Thread(
            target=lambda: answers.append(http.told("/generate", generate(target=server.url), 503))
        )
        thread.start()
        assert server.has_come.wait(10)
        http.service.close()
        thread.join(10)
    assert answers == [
        {"error": f"{server.url} was closed", "errors": [f"{server.url} was closed"]}
    ]


def test_a_run_ends_with_the_service() -> None:
    with served({}) as http:
        http.told("/configure", SMALL)
        http.told("/start", {})
        until(lambda: http.state() == "generating")
    assert http.service.status()["state"] == "idle"
    assert "netops-run" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What somebody waits for; it comes at the end at the latest."""
    event = threading.Event()
    yield event
    event.set()


def test_who_asks_for_more_responses_at_once_than_are_made_is_told_to_ask_again(
    http: Served, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = threading.Semaphore(0)

    def make(*_: object) -> tuple[dict[str, Any], None]:
        made.release()
        assert gate.wait(DEADLINE)
        return {}, None

    monkeypatch.setattr(services, "_response", make)
    with ThreadPoolExecutor() as pool:
        for _ in range(services.ANSWERING):
            pool.submit(http.told, "/generate", generate())
            assert made.acquire(timeout=DEADLINE)

        refused = http.told("/generate", generate(), 503)["error"]
        gate.set()
    assert refused == "busy with 2 responses, which is the most: try again"
    assert http.told("/generate", generate()) == {}


def test_who_only_looks_is_answered_while_all_others_wait(
    http: Served, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Semaphore(0)

    def stop() -> None:
        waiting.release()
        assert gate.wait(DEADLINE)

    monkeypatch.setattr(http.service, "stop", stop)
    with ThreadPoolExecutor(THREADS + 5) as pool:
        stopped = [pool.submit(http.told, "/stop") for _ in range(THREADS + 5)]
        for _ in range(THREADS):
            assert waiting.acquire(timeout=DEADLINE)

        assert http.state() == "idle"
        assert len(http.get("/sites").json()) == 2
        assert not any(each.done() for each in stopped)
        gate.set()


def test_who_only_looks_is_answered_while_a_run_ends(
    http: Served, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    http.told("/start", {})
    ending = threading.Event()
    stop = Run.stop

    def stop_late(run: Run) -> None:
        ending.set()
        assert gate.wait(DEADLINE)
        stop(run)

    monkeypatch.setattr(Run, "stop", stop_late)
    with ThreadPoolExecutor() as pool:
        stopped = pool.submit(http.told, "/stop")
        assert ending.wait(DEADLINE)

        assert len(http.get("/sites").json()) == 2
        assert http.told("/generate", generate())
        assert not stopped.done()
        gate.set()
