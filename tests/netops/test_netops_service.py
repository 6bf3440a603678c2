"""The service over HTTP: what it does, what it refuses, and the seed's walk through it."""

from __future__ import annotations

import functools
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collectord.netops import collector, targets
from collectord.netops import service as services
from collectord.netops.block import SECOND, Block, Simulation
from collectord.netops.configuration import Configuration
from collectord.netops.network import simulations
from collectord.netops.run import Run
from collectord.netops.service import ERRORS, LOOPBACK_NAMES, listen
from collectord.netops.targets import functions_of
from daemon import Daemon, until
from netops.receiving import Receiver, receiver
from netops.seed import SEED
from netops.serving import Served, raw, served

NOON = 1_600_000_000
SMALL: dict[str, Any] = {
    "target": "log",
    "deployment": {"num_companies": 1, "num_sites_per_company": 2, "num_devices_per_site": 3},
}
"""Six devices."""
DAY = 86_400


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    with served({"silent": "log", "self": "response", **functions_of()}, LOOPBACK_NAMES) as client:
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


def generate(**changes: Any) -> dict[str, Any]:
    return {
        "start_timestamp": NOON,
        "end_timestamp": NOON + 10,
        "target": "response",
        **changes,
    }


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
    until(lambda: values_sent(http) > 0)


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


def test_a_wrong_configuration_leaves_all_as_it_is(http: Served) -> None:
    http.told("/start", {})
    until(lambda: http.state() == "generating")
    http.told("/configure", {"interval": -1}, 422)

    assert http.state() == "generating"
    assert len(http.get("/sites").json()) == 2


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


def test_a_request_that_breaks_off_changes_nothing(http: Served) -> None:
    body = json.dumps({**SMALL, "target": "function:silent"}).encode()
    head = f"POST /configure HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) + 1}\r\n"
    with socket.create_connection(("127.0.0.1", http.port)) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass
    assert http.get("/").json()["target"] == "log"


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


def test_wrong_fields_of_a_configuration_are_named(http: Served) -> None:
    wrong = {"error_rate": 2, "metrics": {"cpu": {"metric": {"mu": 1, "sigma": -4}}}}
    answer = http.told("/configure", wrong, 422)

    assert answer["error"] == "; ".join(answer["errors"])
    assert [error.partition(":")[0] for error in answer["errors"]] == [
        "metrics.cpu.metric.sigma",
        "error_rate",
    ]


def test_an_unknown_target_is_told_those_that_are_known(http: Served) -> None:
    answer = http.told("/configure", {**SMALL, "target": "function:nobody"}, 422)
    assert answer["error"] == (
        "there is no function 'nobody'; known are: netops-demo-ingest, self, silent"
    )
    assert "known are: zmq:" in http.told("/generate", generate(target="x"), 422)["error"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/start", {"num_historical_seconds": -1}, "num_historical_seconds"),
        ("/start", {"num_historical_seconds": "day"}, "num_historical_seconds"),
        ("/start", {"num_historical_seconds": 1e12}, "num_historical_seconds"),
        ("/start", {"interval": 0}, "interval"),
        ("/start", {"num_seconds": 5}, "num_seconds"),
        ("/generate", {"end_timestamp": NOON}, "end_timestamp"),
        ("/generate", generate(start_timestamp=NOON * SECOND), "start_timestamp"),
        ("/generate", generate(start_timestamp=-1), "start_timestamp"),
        ("/generate", generate(interval=0), "interval"),
        ("/generate", generate(max_samples_per_metric=0), "max_samples_per_metric"),
        ("/generate", generate(max_samples_per_metric=1.5), "max_samples_per_metric"),
        ("/generate", generate(target=5), "target"),
    ],
)
def test_wrong_fields_of_a_request_are_named(
    http: Served, path: str, body: dict[str, Any], field: str
) -> None:
    answer = http.told(path, body, 422)
    assert [error.partition(":")[0] for error in answer["errors"]] == [field]


@pytest.mark.parametrize("end", [NOON, NOON - 1])
def test_a_range_ends_after_its_start(http: Served, end: int) -> None:
    error = http.told("/generate", generate(end_timestamp=end), 422)["error"]
    assert error == "end_timestamp: must be after start_timestamp"


def test_a_range_for_a_target_has_a_bound(http: Served) -> None:
    error = http.told("/generate", generate(target="log", start_timestamp=0), 422)["error"]
    assert error == (
        f"that is {(NOON + 10) * 12} values, and the most is 100000000: "
        "ask for 8333333 seconds at a time"
    )


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"target": "zmq:nowhere"}, 422),
        ({"target": "http://"}, 422),
        ({"target": "response", "state": "generating"}, 409),
    ],
)
def test_a_configuration_whose_target_cannot_be_leaves_all_as_it_is(
    http: Served, change: dict[str, Any], status: int
) -> None:
    before = http.get("/").json()
    http.told("/configure", SMALL | change, status)
    assert http.get("/").json() == before


def test_the_response_is_no_target_of_a_run(http: Served) -> None:
    http.told("/configure", {**SMALL, "target": "response"})
    assert "POST /generate alone" in http.told("/start", {}, 409)["error"]


@pytest.mark.parametrize("path", ["/configure", "/start", "/generate"])
@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"\xff", b'{"a": 1} x'])
def test_what_is_not_json_is_refused(http: Served, path: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json()["error"] == "the body is not JSON"


@pytest.mark.parametrize("path", ["/configure", "/start", "/generate"])
@pytest.mark.parametrize("body", [[], 5, "x"])
def test_json_that_is_no_object_is_refused(http: Served, path: str, body: Any) -> None:
    answer = http.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"]


@pytest.mark.parametrize(
    "type_",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x/json", ""],
)
def test_a_body_that_does_not_come_as_json_is_refused(http: Served, type_: str) -> None:
    answer = http.post("/configure", content=SEED, headers={"Content-Type": type_})

    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]


def test_a_type_may_have_parameters(http: Served) -> None:
    for type_ in ("application/json; charset=utf-8", "Application/JSON"):
        answer = http.post("/configure", content=json.dumps(SMALL), headers={"Content-Type": type_})
        assert answer.status_code == 200


def test_a_body_has_a_bound(http: Served) -> None:
    body = json.dumps(SMALL).encode()
    headers = {"Content-Type": "application/json"}
    full = http.post("/configure", content=body.ljust(1 << 20), headers=headers)
    more = http.post("/configure", content=body.ljust((1 << 20) + 1), headers=headers)

    assert (full.status_code, more.status_code) == (200, 413)
    assert more.json()["error"] == "the body is longer than 1048576 bytes, which is the most"


def test_a_body_of_no_told_length_has_the_same_bound(http: Served) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * (1 << 16)

    answer = http.post("/configure", content=pieces(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/", "/sites", "/stop"])
def test_another_name_of_this_host_is_not_answered(http: Served, path: str) -> None:
    method = "POST" if path == "/stop" else "GET"
    for host in ("evil.example", f"evil.example:{http.port}", "localhost.evil.example", "", "[x"):
        answer = raw(
            http.port,
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 403 "), answer


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:5"])
def test_its_own_names_are_answered(http: Served, host: str) -> None:
    assert http.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/stop", "/start"])
def test_a_page_of_another_site_changes_nothing(http: Served, path: str) -> None:
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        answer = http.post(path, headers={"Origin": origin})
        assert answer.status_code == 403
        assert answer.json()["error"] == "a page of another site may not ask for this"
    own = http.post("/stop", headers={"Origin": f"http://localhost:{http.port}"})
    assert own.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/configure", 405), ("POST", "/sites", 405)],
)
def test_what_there_is_not_is_told_in_json(
    http: Served, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(f"{method} {path}: ")


def test_a_fault_of_its_own_is_told_in_json(http: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(services, "_response", fail)
    answer = http.told("/generate", generate(), 500)
    assert "secret" not in answer["error"]


def test_each_kind_of_error_has_its_own_row() -> None:
    kinds = list(ERRORS)
    for place, kind in enumerate(kinds):
        assert not any(issubclass(kind, before) for before in kinds[:place])


METRICS = ("cpu_utilization", "throughput")
PROXIED = " ".join(
    f"{struct}-{metric}:AggProxyCount:AggProxySumAnomalyEWM01"
    for struct in ("UveDevice", "UveSite", "UveCompany")
    for metric in METRICS
)


def test_the_seeds_walk_from_configure_to_merged_uves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of history, then live: nothing is lost, and sites are sums over their devices."""
    sent: list[tuple[Simulation, Block]] = []
    observed = functools.partial(Run, observer=lambda *block: sent.append(block))
    monkeypatch.setattr(services, "Run", observed)
    with (
        Daemon(f"--DEFAULT.uve_proxy_list={PROXIED}", "--SNAPSHOT.directory=") as daemon,
        served(functions_of(daemon.ingest)) as http,
    ):
        as_httpie = {"Content-Type": "application/json", "Accept": "application/json, */*;q=0.5"}
        configured = http.post("/configure", content=SEED, headers=as_httpie)
        assert (configured.status_code, configured.json()["state"]) == (200, "idle")
        start = f'{{"num_historical_seconds": {DAY}}}'
        started = http.post("/start", content=start, headers=as_httpie)
        assert (started.status_code, started.json()["state"]) == (200, "priming")
        _until_values(http, (DAY + 2) * DEVICES * len(METRICS))
        assert http.state() == "generating"
        stopped = http.told("/stop")

        # Every second of the day and of the life after it, once.
        times = np.concatenate([block.times for _, block in sent])
        assert np.diff(times).tolist() == [SECOND] * (len(times) - 1)
        assert stopped["state"] == "idle"
        assert stopped["progress"] | {"rate": 0} == {
            "values": len(times) * DEVICES * len(METRICS),
            "history_done": DAY,
            "history_steps": DAY,
            "time": times[-1] / SECOND,
            "rate": 0,
            "seconds_left": None,
            "rejected": 0,
            "trouble": "",
        }
        _assert_that_nothing_was_lost(daemon, len(times), len(sent))

        simulation, last = sent[-1]
        sites = http.get("/sites").json()
        assert len(sites) == 4
        for site in sites:
            rows = [
                row
                for row, emitter in enumerate(simulation.emitters)
                if emitter.labels["site"] == site["name"]
            ]
            _assert_merged(daemon, site["key"], "UveSite", last, rows, times)
        for company in {site["company"] for site in sites}:
            rows = [
                row
                for row, emitter in enumerate(simulation.emitters)
                if emitter.labels["company"] == company
            ]
            _assert_merged(daemon, f"ObjectCompany:{company}", "UveCompany", last, rows, times)


DEVICES = 20
"""Of two companies with two sites of five devices: the seed's document leaves it open."""


def _until_values(http: Served, wanted: int) -> None:
    """Wait until so many were sent, as long as there is any progress."""
    sent = -1

    def more() -> bool:
        return values_sent(http) > sent

    while (now := values_sent(http)) < wanted:
        sent = now
        until(more)


def values_sent(http: Served) -> int:
    values: int = http.get("/").json()["progress"]["values"]
    return values


def _assert_that_nothing_was_lost(daemon: Daemon, steps: int, blocks: int) -> None:
    counters = daemon.ask("status")["counters"]
    troubles = ("samples_late", "batches_duplicate", "batches_resync", "batches_overloaded")
    assert {name: counters[name] for name in troubles} == dict.fromkeys(troubles, 0)
    assert [name for name, count in counters.items() if "rejected" in name and count] == []
    # Each device tells of itself, its site and its company, the metrics of each at every step.
    assert counters["samples"] == steps * DEVICES * 3 * len(METRICS)
    # It also describes the three of them once, and tells its alerts with each block.
    assert counters["records"] == steps * DEVICES * 3 + DEVICES * (3 + blocks)


def _assert_merged(
    daemon: Daemon, key: str, struct: str, last: Block, rows: list[int], times: NDArray[np.int64]
) -> None:
    """The UVE is what its devices told last, added up, and every minute since the start scored."""
    first_minute, last_minute = (int(time) // SECOND // 60 for time in (times[0], times[-1]))
    in_last_minute = int(np.count_nonzero(times // SECOND // 60 == last_minute))
    minutes = last_minute - first_minute

    def scored() -> Any:
        """The UVE as soon as every algorithm of both metrics is that far."""
        uve = daemon.uve(key)
        scores = [
            uve.get(f"AggProxySumAnomalyEWM01-{struct}-{metric}", {"value": {}})["value"]
            for metric in METRICS
        ]
        return uve if all(score.get("samples", 0) >= minutes for score in scores) else None

    uve = until(scored)

    for metric in METRICS:
        assert uve[struct][metric] == pytest.approx(last.values[metric][rows, -1].sum())
        assert uve[struct]["devices"] == len(rows)
        score = uve[f"AggProxySumAnomalyEWM01-{struct}-{metric}"]["value"]
        count = uve[f"AggProxyCount-{struct}-{metric}"]["value"]["value"]
        # The last minute is over too where this took that long.
        assert (score["samples"], count) in (
            (minutes, 60 * len(rows)),
            (minutes + 1, in_last_minute * len(rows)),
        )
