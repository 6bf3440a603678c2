"""The verifier of ``tests/crash``: a short run of it, and that it notices what it is there for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from crash.account import PERIOD, STRUCT, Account, differences
from crash.run import Run


def test_whatever_kills_the_collector_nothing_is_lost_and_nothing_is_there_twice(
    tmp_path: Path,
) -> None:
    with Run(tmp_path, 1) as run:
        assert run.go(4), run.summary()
    assert run.figures["kills"] + run.figures["orderly ends"] >= 4
    assert run.figures["closed periods"] > 0


# ---- it would notice -----------------------------------------------------------------------------


def test_it_notices_a_collector_that_forgets_what_it_called_durable(tmp_path: Path) -> None:
    def forget(run: Run) -> None:
        shutil.rmtree(run.child.snapshots)
        for publisher in run.publishers:  # who has something to send hears of it at once
            records = one_more(run.account, publisher.name)
            run.account.take(publisher.name, records)
            publisher.keep(records)

    with Run(tmp_path, 2, on_restart=forget) as run:
        assert not run.go(5)
    assert any("is durable, and now to resync" in text for text in violations(run))


def test_it_notices_a_batch_that_is_applied_twice(tmp_path: Path) -> None:
    def tell_again(run: Run) -> None:
        publisher = run.publishers[0]
        publisher.keep(one_more(run.account, publisher.name))

    with Run(tmp_path, 3, on_restart=tell_again) as run:
        assert not run.go(5)
    assert run.figures["twice"]


def test_it_notices_a_batch_that_is_never_applied(tmp_path: Path) -> None:
    def forget_to_tell(run: Run) -> None:
        publisher = run.publishers[0]
        run.account.take(publisher.name, one_more(run.account, publisher.name))

    with Run(tmp_path, 4, on_restart=forget_to_tell) as run:
        assert not run.go(5)
    assert run.figures["lost"]


def one_more(account: Account, source: str) -> list[list[object]]:
    """A sample of the newest period of a key that this source told of, if there is one yet."""
    keys = [key for key, structs in account.structs.items() if source in structs.get(STRUCT, {})]
    return [[key, STRUCT, {"flows": 1}, max(account.periods[key]) * PERIOD] for key in keys[:1]]


def violations(run: Run) -> list[str]:
    return [text for publisher in run.publishers for text in publisher.violations]


@pytest.fixture
def account() -> Account:
    """Twenty periods of one key, told by two sources in turn."""
    made = Account()
    for number in range(20):
        source = f"host-{number % 2}"
        made.take(source, [["T:a", STRUCT, {"flows": number, "serial": number}, number * PERIOD]])
    return made


@pytest.mark.parametrize("by_source", [False, True])
def test_the_account_agrees_with_itself(account: Account, by_source: bool) -> None:
    views = {"T:a": account.view("T:a", by_source=by_source)}
    assert differences(account, views, by_source=by_source) == []


@pytest.mark.parametrize(
    ("period", "kind"),
    [
        pytest.param(19, "lost", id="in the newest period"),
        pytest.param(11, "lost", id="in the last closed period"),
        pytest.param(3, "wrong", id="in an earlier one"),
    ],
)
def test_a_sample_that_is_missing_shows_wherever_its_period_stands(
    account: Account, period: int, kind: str
) -> None:
    views = {"T:a": account.view("T:a", by_source=True)}
    account.periods["T:a"][period].add(5)
    assert kind in {found.kind for found in differences(account, views, by_source=True)}


@pytest.mark.parametrize("period", [19, 11])
def test_a_sample_that_counts_twice_is_told_from_a_missing_one(
    account: Account, period: int
) -> None:
    before = account.view("T:a", by_source=True)
    account.periods["T:a"][period].add(5)
    views = {"T:a": account.view("T:a", by_source=True)}
    account.periods["T:a"][period].count -= 1
    account.periods["T:a"][period].total -= 5
    assert account.view("T:a", by_source=True) == before
    found = differences(account, views, by_source=True)
    assert "twice" in {difference.kind for difference in found}


def test_an_older_record_is_a_lost_one(account: Account) -> None:
    views = {"T:a": account.view("T:a", by_source=True)}
    account.take("host-0", [["T:a", "UveOther", {"x": 1}, 0]])
    assert [found.kind for found in differences(account, views, by_source=True)] == ["lost"]
