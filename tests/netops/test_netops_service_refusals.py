"""The service over HTTP: what it refuses, and whom."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from collectord.netops import service as services
from collectord.netops.block import SECOND
from collectord.netops.guard import LOOPBACK_NAMES, known_as
from collectord.netops.service import ERRORS
from collectord.netops.targets import functions_of
from daemon import until
from netops.seed import SEED
from netops.serving import NOON, SMALL, Served, generate, raw, served


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


def test_a_wrong_configuration_leaves_all_as_it_is(http: Served) -> None:
    http.told("/start", {})
    until(lambda: http.state() == "generating")
    http.told("/configure", {"interval": -1}, 422)

    assert http.state() == "generating"
    assert len(http.get("/sites").json()) == 2


def test_a_request_that_breaks_off_changes_nothing(http: Served) -> None:
    body = json.dumps({**SMALL, "target": "function:silent"}).encode()
    head = f"POST /configure HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body) + 1}\r\n"
    with socket.create_connection(("127.0.0.1", http.port)) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass
    assert http.get("/").json()["target"] == "log"


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


def test_no_body_is_no_configuration(http: Served) -> None:
    assert http.told("/configure", status=400)["error"] == "the body is not JSON"


def test_what_is_written_twice_is_refused(http: Served) -> None:
    headers = {"Content-Type": "application/json"}
    answer = http.post("/configure", content='{"seed": 1, "seed": 2}', headers=headers)
    assert answer.status_code == 422
    assert "'seed' is written twice" in answer.json()["error"]


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


def test_a_page_of_nowhere_changes_nothing_where_any_name_is_answered() -> None:
    with served({}) as http:
        for origin in ("null", "http://[x"):
            lines = ("POST /stop HTTP/1.1", "Host: ", f"Origin: {origin}", "Connection: close")
            answer = raw(http.port, "\r\n".join([*lines, "", ""]).encode())
            assert answer.startswith(b"HTTP/1.1 403 "), answer


HERE = socket.gethostname().lower()


@pytest.mark.parametrize(
    ("host", "address", "names"),
    [
        ("localhost", "127.0.0.1", ["localhost", "127.0.0.1", "::1"]),
        ("127.0.0.9", "127.0.0.9", ["localhost", "127.0.0.1", "::1", "127.0.0.9"]),
        ("10.0.0.5", "10.0.0.5", ["10.0.0.5"]),
        ("Box.Example", "10.0.0.5", ["box.example", "10.0.0.5"]),
        ("2001:DB8:0::1", "2001:db8::1", ["2001:db8::1"]),
    ],
)
def test_it_is_known_as_what_it_listens_at(host: str, address: str, names: list[str]) -> None:
    assert known_as(host, [address]) == names
    assert known_as(host, [address], ["Other.example"]) == [*names, "other.example"]


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "::"])
def test_at_every_address_it_is_known_by_any_of_them_and_its_own_names(everywhere: str) -> None:
    with served({}, known_as(everywhere, [everywhere], ["allowed.example"])) as http:
        for host in ("localhost", "10.0.0.5", "[2001:db8::1]:80", HERE, "Allowed.example:8100"):
            assert http.get("/", headers={"Host": host}).status_code == 200, host
        # "any IP address" is what it tells that it is called, and no name.
        for host in ("evil.example", "10.0.0.5.evil.example", "any IP address", ""):
            assert http.get("/", headers={"Host": host}).status_code == 403, host


def test_who_calls_it_by_another_name_is_told_what_to_do() -> None:
    with served({}, ["box", "10.0.0.5"]) as http:
        answer = http.get("/", headers={"Host": "box.example:80"})
    assert answer.json()["error"] == (
        "this is not 'box.example', but known as box, 10.0.0.5; if it is to be called that, serve "
        "it with --allow-host and the name"
    )


@pytest.mark.parametrize(
    ("host", "known", "unknown"),
    [("localhost", "localhost", "10.0.0.5"), ("0.0.0.0", "10.0.0.5", "evil.example")],
)
def test_serving_answers_to_its_names_and_those_that_are_allowed(
    monkeypatch: pytest.MonkeyPatch, host: str, known: str, unknown: str
) -> None:
    class Ready(uvicorn.Server):
        """Asks itself as soon as it serves, and ends."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            assert sockets
            port: int = sockets[0].getsockname()[1]
            async with httpx.AsyncClient(trust_env=False) as client:
                for name in (known, "allowed.example", unknown):
                    url, headers = f"http://127.0.0.1:{port}/", {"Host": name}
                    statuses[name] = (await client.get(url, headers=headers)).status_code
            self.should_exit = True

    def server(*arguments: Any, **options: Any) -> uvicorn.Server:
        return Ready(services_server(*arguments, **options).config)

    statuses: dict[str, int] = {}
    services_server = services.server
    monkeypatch.setattr(services, "server", server)
    services.serve(host, 0, functions={}, allow_hosts=["allowed.example"])

    assert statuses == {known: 200, "allowed.example": 200, unknown: 403}


@pytest.mark.parametrize("path", ["/stop", "/start"])
def test_a_page_of_another_site_changes_nothing(http: Served, path: str) -> None:
    for origin in ("http://evil.example", "null", "http://localhost:1", "http://[x", "[", ""):
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


@pytest.mark.parametrize("path", ["/start", "/generate"])
def test_an_interval_that_makes_too_much_of_a_network_is_refused(http: Served, path: str) -> None:
    sites = {"num_companies": 10, "num_sites_per_company": 10, "num_devices_per_site": 50}
    http.told("/configure", {**SMALL, "deployment": sites})

    [error] = http.told(path, {"interval": 0.001}, 422)["errors"]

    assert error.startswith("interval: ")
