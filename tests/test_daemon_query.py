"""The query socket of a running collector: every operation and filter, in msgpack and in JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import zmq

import collectord
from daemon import METRIC, STRUCT, Daemon, new_key, receive, unpack

Ask = Callable[..., Any]

ONE, TWO = (
    "compute-1:Compute:contrail-vrouter-agent:0",
    "compute-2:Compute:contrail-vrouter-agent:0",
)
CONTROL = "control-1:Control:contrail-control:0"
CONFIG = "ContrailConfig"
TABLE = "ObjectQueryTable"
PAGED = [f"ObjectPageTable:demo:vn{number:03}" for number in range(300)]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with Daemon("--DEFAULT.hostname=collector-1") as daemon:
        with daemon.source() as source:
            source.tell(*([key, STRUCT, {"a": 1}] for key in reversed(PAGED)))
        yield daemon


@pytest.fixture(params=["msgpack", "json"])
def ask(request: pytest.FixtureRequest, daemon: Daemon) -> Ask:
    """Asks, in one language and in the other."""
    return daemon.ask if request.param == "msgpack" else daemon.ask_json


@pytest.fixture(scope="module")
def key(daemon: Daemon) -> str:
    """A UVE of which three sources tell."""
    key = new_key(TABLE)
    with daemon.source(ONE) as one, daemon.source(TWO) as two, daemon.source(CONTROL) as control:
        one.tell([key, STRUCT, {"acl": "x", "flows": 1}], aggtypes={STRUCT: {"flows": "sum"}})
        two.tell([key, STRUCT, {"acl": "y", "flows": 2}])
        control.tell([key, CONFIG, {"deleted": False}], [key, STRUCT, {"acl": "x"}])
    return key


# ---- get ---------------------------------------------------------------------------------------


def test_get_merges_what_all_sources_told(ask: Ask, key: str) -> None:
    assert ask("get", key=key) == {
        "ok": True,
        "uve": {
            CONFIG: {"deleted": False},
            STRUCT: {"acl": [["x", ONE, CONTROL], ["y", TWO]], "flows": 3},
        },
    }


def test_get_of_an_unknown_key_is_not_found(ask: Ask) -> None:
    reply = ask("get", key="ObjectVNTable:nowhere")

    assert reply["ok"] is False
    assert reply["error"]["code"] == "not_found"
    assert "ObjectVNTable:nowhere" in reply["error"]["message"]


@pytest.mark.parametrize(
    ("filters", "uve"),
    [
        ({"sfilt": "compute-2"}, {STRUCT: {"acl": "y", "flows": 2}}),
        ({"sfilt": "control-1"}, {STRUCT: {"acl": "x"}, CONFIG: {"deleted": False}}),
        (
            {"mfilt": "Compute:contrail-vrouter-agent:0"},
            {STRUCT: {"acl": [["x", ONE], ["y", TWO]], "flows": 3}},
        ),
        (
            {"sfilt": "compute-1", "mfilt": "Compute:contrail-vrouter-agent:0"},
            {STRUCT: {"acl": "x", "flows": 1}},
        ),
        ({"sfilt": "compute-1", "mfilt": "Control:contrail-control:0"}, {}),
        ({"sfilt": "compute"}, {}),
        ({"cfilt": [CONFIG]}, {CONFIG: {"deleted": False}}),
        ({"cfilt": [f"{STRUCT}:flows"]}, {STRUCT: {"flows": 3}}),
        (
            {"cfilt": [f"{STRUCT}:flows", CONFIG]},
            {STRUCT: {"flows": 3}, CONFIG: {"deleted": False}},
        ),
        ({"cfilt": ["Unknown"]}, {}),
        ({"cfilt": [f"{STRUCT}:unknown"]}, {}),
        (
            {"by_source": True},
            {
                CONFIG: {"deleted": {CONTROL: False}},
                STRUCT: {"acl": {ONE: "x", TWO: "y", CONTROL: "x"}, "flows": {ONE: 1, TWO: 2}},
            },
        ),
        (
            {"by_source": True, "sfilt": "compute-2", "cfilt": [f"{STRUCT}:flows"]},
            {STRUCT: {"flows": {TWO: 2}}},
        ),
        ({"kfilt": [f"{TABLE}:*"], "cfilt": [f"{STRUCT}:flows"]}, {STRUCT: {"flows": 3}}),
    ],
    ids=json.dumps,
)
def test_get_filters(ask: Ask, key: str, filters: dict[str, Any], uve: dict[str, Any]) -> None:
    assert ask("get", key=key, **filters) == {"ok": True, "uve": uve}


def test_get_of_a_key_that_kfilt_leaves_out_is_not_found(ask: Ask, key: str) -> None:
    assert ask("get", key=key, kfilt=["Other:*"])["error"]["code"] == "not_found"


def test_a_view_holds_the_key_s_proxy_uves(daemon: Daemon, ask: Ask) -> None:
    key = new_key()
    with daemon.source() as source:
        source.tell([key, STRUCT, {"egress_flow_count": 5}])

    assert ask("get", key=key)["uve"] == {
        STRUCT: {"egress_flow_count": 5},
        f"AggProxySum-{METRIC}": {"proxy": METRIC, "deleted": False, "value": {"staging": 5}},
        f"AggProxySumAnomalyEWM01-{METRIC}": {"proxy": METRIC, "deleted": False},
    }


def test_cfilt_names_proxy_uves_too(daemon: Daemon, ask: Ask) -> None:
    key, name = new_key(), f"AggProxySum-{METRIC}"
    with daemon.source() as source:
        source.tell([key, STRUCT, {"egress_flow_count": 5}])

    reply = ask("get", key=key, cfilt=[f"{name}:value"])

    assert reply["uve"] == {name: {"value": {"staging": 5}}}


# ---- find --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        {"table": TABLE},
        {"match": f"{TABLE}:*"},
        {"table": TABLE, "match": "*demo*"},
        {"kfilt": ["Nothing", f"{TABLE}:*"]},
    ],
    ids=json.dumps,
)
def test_find_shows_each_uve_of_a_table_or_pattern(
    ask: Ask, key: str, request_: dict[str, Any]
) -> None:
    reply = ask("find", **request_, cfilt=[f"{STRUCT}:flows"])

    assert reply == {"ok": True, "uves": {key: {STRUCT: {"flows": 3}}}}


def test_find_leaves_out_uves_of_which_the_filters_leave_nothing(ask: Ask, key: str) -> None:
    assert ask("find", table=TABLE, sfilt="elsewhere") == {"ok": True, "uves": {}}


def test_find_wants_a_table_or_a_pattern(ask: Ask) -> None:
    assert ask("find")["error"]["code"] == "bad_request"


def test_find_of_an_unknown_table_is_empty(ask: Ask) -> None:
    assert ask("find", table="Unknown") == {"ok": True, "uves": {}}


def test_find_gives_100_uves_in_the_order_of_their_keys(ask: Ask) -> None:
    reply = ask("find", table="ObjectPageTable")

    assert list(reply["uves"]) == PAGED[:100]
    assert reply["next"]


def pages(ask: Ask, op: str, **request: Any) -> Iterator[Any]:
    """All pages of a request, one after the other."""
    after: dict[str, str] = {}
    while True:
        reply = ask(op, **request, **after)
        assert reply["ok"], reply
        yield reply
        if "next" not in reply:
            return
        after = {"after": reply["next"]}


@pytest.mark.parametrize("limit", [1, 7, 100, 299, 300, 301, 1000])
def test_the_pages_of_find_and_of_list_are_all_keys_in_order(ask: Ask, limit: int) -> None:
    found = [
        page["uves"].keys() for page in pages(ask, "find", table="ObjectPageTable", limit=limit)
    ]
    listed = [page["keys"] for page in pages(ask, "list", table="ObjectPageTable", limit=limit)]

    assert all(len(page) <= limit for page in [*found, *listed])
    assert [key for page in found for key in page] == PAGED
    assert [key for page in listed for key in page] == PAGED


def test_pages_go_on_though_keys_came_and_went(daemon: Daemon, ask: Ask) -> None:
    first = ask("find", table="ObjectPageTable", limit=10)
    gone = "ObjectPageTable:demo:vn0095"
    with daemon.source() as source:
        source.tell([gone, STRUCT, {"a": 1}])
        source.tell([gone, STRUCT, None])

    second = ask("find", table="ObjectPageTable", limit=10, after=first["next"])

    assert list(second["uves"]) == PAGED[10:20]


def test_find_with_a_narrow_filter_comes_to_an_end(ask: Ask, key: str) -> None:
    found: dict[str, Any] = {}
    for page in pages(ask, "find", match="*", sfilt="compute-2", limit=5):
        found |= page["uves"]

    assert found == {key: {STRUCT: {"acl": "y", "flows": 2}}}


# ---- list --------------------------------------------------------------------------------------


def test_list_counts_the_keys_of_each_table(ask: Ask) -> None:
    assert ask("list")["tables"]["ObjectPageTable"] == 300


@pytest.mark.parametrize(
    ("request_", "keys"),
    [
        ({"table": "ObjectPageTable", "match": "*vn29*"}, PAGED[290:]),
        ({"match": "*Page*vn00?"}, []),
        ({"match": PAGED[5]}, [PAGED[5]]),
        ({"table": "ObjectPageTable", "kfilt": [PAGED[7], "*vn003"]}, [PAGED[3], PAGED[7]]),
        ({"kfilt": ["ObjectPage*298", "ObjectPage*299"], "after": PAGED[298]}, [PAGED[299]]),
        ({"table": "ObjectPageTable", "after": PAGED[297]}, PAGED[298:]),
        ({"table": "ObjectPageTable", "after": PAGED[299]}, []),
        ({"table": "ObjectPage"}, []),
    ],
    ids=json.dumps,
)
def test_list_gives_the_keys_of_a_table_or_pattern(
    ask: Ask, request_: dict[str, Any], keys: list[str]
) -> None:
    assert ask("list", **request_) == {"ok": True, "keys": keys}


# ---- the rest ----------------------------------------------------------------------------------


def test_sources_tell_how_far_each_has_come(ask: Ask, key: str) -> None:
    known = ask("sources")["sources"][ONE]

    assert known.pop("last_seen") > 1_700_000_000_000_000
    assert known == {"records": 1, "epoch": 1, "seq": 1, "durable": 0, "gone": False}


def test_a_source_without_numbers_has_no_epoch_and_no_seq(daemon: Daemon, ask: Ask) -> None:
    with daemon.source() as source:
        source.post(source.batch([new_key(), STRUCT, {"a": 1}]))
        source.settle()

        known = ask("sources")["sources"][source.name]

    assert (known["epoch"], known["seq"], known["records"]) == (None, None, 1)


def test_menu_tells_the_algorithms_and_what_is_configured(ask: Ask) -> None:
    reply = ask("menu")

    menu = {entry["name"]: entry for entry in reply["menu"]}
    for reducer in ("Sum", "Avg", "Min", "Max", "Count", "Last"):
        for name in (f"AggProxy{reducer}", f"AggProxy{reducer}AnomalyEWM<alpha>"):
            entry = menu.pop(name)
            assert (entry["period"], entry["timeout"]) == (60, 1)
            assert entry["parameters"].keys() == ({"alpha"} if "EWM" in name else set())
    assert menu == {}
    assert reply["configured"] == {
        f"{STRUCT}-{attribute}": ["AggProxySumAnomalyEWM01", "AggProxySum"]
        for attribute in ("egress_flow_count", "ingress_flow_count")
    }


def test_status_tells_version_times_counters_memory_and_sizes(ask: Ask) -> None:
    status = ask("status")

    assert status["version"] == collectord.__version__
    assert status["hostname"] == "collector-1"
    assert 1_700_000_000_000_000 < status["start_time"] <= status["time"]
    assert status["uptime"] == (status["time"] - status["start_time"]) // 1_000_000
    assert status["counters"]["batches_applied"] > 0
    assert status["memory"]["resident"] > 1 << 20
    assert status["sizes"].keys() == {"keys", "records", "series", "sources", "bytes"}
    assert status["sizes"]["keys"] >= 300


def test_unknown_fields_of_a_request_are_ignored(ask: Ask) -> None:
    assert ask("list", colour="blue")["ok"]


def test_a_field_that_is_nil_is_as_good_as_absent(ask: Ask, key: str) -> None:
    nothing = dict.fromkeys(["sfilt", "mfilt", "cfilt", "kfilt", "by_source"])

    assert ask("get", key=key, **nothing) == ask("get", key=key)


def test_a_reply_is_in_the_language_of_its_request(daemon: Daemon) -> None:
    assert json.loads(daemon.ask_body(b'{"op": "list"}'))["ok"]
    assert unpack(daemon.ask_body(msgpack.packb({"op": "list"})))["ok"]
    assert json.loads(daemon.ask_body(b'{"op": "nothing"}'))["ok"] is False


def test_a_req_is_answered_request_after_request(daemon: Daemon) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.linger = 0
        req.connect(daemon.query)
        for _ in range(3):
            req.send(b'{"op": "list"}')
            (body,) = receive(req)
            assert json.loads(body)["ok"]


def test_many_requests_in_flight_are_all_answered(daemon: Daemon, key: str) -> None:
    requests = 500
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(daemon.query)
        for _ in range(requests):
            dealer.send(msgpack.packb({"op": "get", "key": key}))

        for _ in range(requests):
            (body,) = receive(dealer)
            assert unpack(body)["ok"]
