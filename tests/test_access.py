"""Keys: their files as they are made, read and refused; and the table of who may do what."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
import zmq.auth

from collectord import ctl, curve
from collectord.access import Access, check_addresses, read_clients
from collectord.curve import Curve, KeyFileError
from collectord.settings import ConfigurationError, Settings, load
from keys import Keys

CLIENT = {"rights": "send ask", "sources": "compute-1* compute-2"}


def settings(*options: str) -> Settings:
    return load(options, {})


def test_a_pair_is_two_files_that_fit_each_other(tmp_path: Path) -> None:
    public, secret = curve.create_pair(tmp_path, "compute-1", CLIENT)

    assert (public.name, secret.name) == ("compute-1.key", "compute-1.key_secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    pair = curve.read_pair(secret)
    assert pair == (curve.read_public(public).public, pair[1])
    assert zmq.curve_public(pair[1]) == pair[0]


def test_the_public_file_says_what_its_owner_may_do(tmp_path: Path) -> None:
    public, _ = curve.create_pair(tmp_path, "compute-1", CLIENT)
    certificate = curve.read_public(public)

    assert certificate.rights() == {"send", "ask"}
    assert certificate.sources() == ("compute-1*", "compute-2")


def test_other_tools_read_what_is_made(tmp_path: Path) -> None:
    public, secret = curve.create_pair(tmp_path, "compute-1", CLIENT)

    assert zmq.auth.load_certificate(secret) == curve.read_pair(secret)
    assert zmq.auth.load_certificate(public) == (curve.read_public(public).public, None)


def test_what_other_tools_make_is_read(tmp_path: Path) -> None:
    _, secret = zmq.auth.create_certificates(tmp_path, "compute-1")
    Path(secret).chmod(0o600)

    assert curve.read_pair(secret) == zmq.auth.load_certificate(secret)


@pytest.mark.parametrize("suffix", [curve.PUBLIC, curve.SECRET])
def test_no_file_is_overwritten_and_no_half_of_a_pair_is_left(tmp_path: Path, suffix: str) -> None:
    there = tmp_path / f"compute-1{suffix}"
    there.write_text("mine")

    with pytest.raises(KeyFileError, match=r"File exists; remove it if nobody uses it"):
        curve.create_pair(tmp_path, "compute-1", {})

    assert [path.name for path in tmp_path.iterdir()] == [there.name]
    assert there.read_text() == "mine"


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../a", "a\nb"])
def test_a_name_that_is_no_files_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="is no name for a file"):
        curve.create_pair(tmp_path, name, {})
    assert not list(tmp_path.iterdir())


def test_where_there_is_no_directory_the_error_says_so() -> None:
    with pytest.raises(KeyFileError, match=r"/nowhere/a.key: cannot be made: .*; name another"):
        curve.create_pair("/nowhere", "a", {})


def rewritten(change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_text(change(path.read_text()))

    return apply


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def damaged_key(text: str) -> str:
    return text.replace('secret-key = "', 'secret-key = "~~', 1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (Path.unlink, "cannot be read: No such file or directory; name a file that"),
        (replaced_by_a_directory, "cannot be read: Is a directory"),
        (replaced_by_a_pipe, "is not a file"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "is not a ZeroMQ certificate"),
        (lambda path: path.write_text("a = b"), "is not a ZeroMQ certificate"),
        (lambda path: path.write_text(""), "has no public key"),
        (lambda path: path.write_text("#" * 100_000), "is too large for a key file"),
        (rewritten(damaged_key), "its secret-key is no key"),
        (rewritten(lambda text: text.split("    secret-key")[0]), "has no secret key; name the"),
        (lambda path: path.chmod(0o604), "everybody can get at; make a new pair"),
    ],
)
def test_a_secret_file_that_is_not_as_it_should_be_is_told(
    tmp_path: Path, spoil: Callable[[Path], object], reason: str
) -> None:
    _, secret = curve.create_pair(tmp_path, "compute-1", {})
    text = secret.read_text()
    spoil(secret)

    with pytest.raises(KeyFileError) as refused:
        curve.read_pair(secret)

    assert str(refused.value).startswith(f"{secret}: ")
    assert reason in str(refused.value)
    assert text.split('secret-key = "')[1][:20] not in str(refused.value)


def test_keys_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    _, one = curve.create_pair(tmp_path, "one", {})
    _, other = curve.create_pair(tmp_path, "other", {})
    head = one.read_text().split("    secret-key")[0]
    one.write_text(head + "    secret-key" + other.read_text().split("    secret-key")[1])

    with pytest.raises(KeyFileError, match="its two keys are no pair"):
        curve.read_pair(one)


def test_a_secret_key_of_the_collector_is_no_clients_business(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.admit("compute-1")

    with pytest.raises(KeyFileError, match=r"holds a secret key.*name the file .* with \.key"):
        Curve.load(keys.secret_file("compute-1"), keys.server_secret)


def test_a_secret_key_is_never_shown(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    loaded = keys.admit("compute-1")
    certificate = curve.read_certificate(keys.secret_file("compute-1"))

    for shown in (repr(loaded), str(loaded), repr(certificate)):
        assert loaded.secret.decode() not in shown
        assert repr(loaded.secret) not in shown


def test_the_clients_of_a_directory_are_known_by_their_public_keys(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    one, two = keys.admit("one", ["send"], ["a*"]), keys.admit("two")
    (keys.clients / "README").write_text("no key")

    clients = read_clients(keys.clients)

    assert set(clients) == {one.public.decode(), two.public.decode()}
    first = clients[one.public.decode()]
    assert first.name == "one"
    assert first.rights == {"send"}
    assert first.speaker is not None
    assert first.speaker.patterns == ("a*",)
    assert clients[two.public.decode()].speaker is None


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('rights = "send ask watch"', 'rights = "send fly"', "unknown right 'fly'; there are send"),
        ('    rights = "send ask watch"\n', "", "says no rights; write rights = "),
        ('rights = "send ask watch"', 'rights = ""', "says no rights"),
        ('sources = "a"', 'sources = ""', "sources is empty"),
        ('sources = "a"', f'sources = "{"a" * 257}"', "is longer than a source's name"),
    ],
)
def test_a_client_whose_file_says_nonsense_is_told(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    keys = Keys(tmp_path)
    keys.admit("one", sources=["a"])
    path = keys.clients / "one.key"
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(ConfigurationError) as refused:
        read_clients(keys.clients)

    (error,) = refused.value.errors
    assert error.startswith(f"{path}: ")
    assert reason in error


def test_all_that_is_wrong_with_the_clients_is_told_at_once(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.admit("one")
    (keys.clients / "copy.key").write_text((keys.clients / "one.key").read_text())
    (keys.clients / "empty.key").write_text("")
    (keys.clients / "secret.key").write_text(keys.secret_file("one").read_text())
    (keys.clients / "secret.key").chmod(0o600)

    with pytest.raises(ConfigurationError) as refused:
        read_clients(keys.clients)

    told = "\n".join(refused.value.errors)
    assert len(refused.value.errors) == 3
    assert f"has the key that {keys.clients / 'copy.key'} has" in told
    assert "has no public key" in told
    assert "holds a secret key" in told


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_this_host_alone_wants_no_keys(address: str) -> None:
    assert not check_addresses(settings(f"--DEFAULT.hostip={address}"))


def test_each_address_that_others_reach_is_told_once() -> None:
    errors = check_addresses(settings("--DEFAULT.hostip=0.0.0.0", "--QUERY.server=::"))

    assert [error.split(": ")[1] for error in errors] == ["DEFAULT.hostip", "QUERY.server"]
    assert not check_addresses(settings("--DEFAULT.hostip=0.0.0.0", "--SECURITY.insecure=true"))
    assert not check_addresses(settings("--DEFAULT.hostip=0.0.0.0", "--SECURITY.server_key=x"))
    local = ["--COLLECTOR.server=127.0.0.1", "--QUERY.server=::1", "--STREAM.server=127.0.0.2"]
    assert not check_addresses(settings("--DEFAULT.hostip=0.0.0.0", *local))


def with_access(keys: Keys, use: Callable[[Access], None]) -> None:
    async def run() -> None:
        with zmq.Context() as context:
            access = Access(settings(*keys.options), context)
            try:
                use(access)
            finally:
                access.close()

    asyncio.run(run())


def test_a_reload_tells_which_rights_were_lost(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.admit("stays")
    keys.admit("goes", ["send", "watch"])

    def use(access: Access) -> None:
        assert access.reload(settings(*keys.options)) == frozenset()
        keys.revoke("goes")
        assert access.reload(settings(*keys.options)) == {"send", "watch"}
        keys.admit("comes")
        assert access.reload(settings(*keys.options)) == frozenset()

    with_access(keys, use)


def test_a_reload_that_fails_leaves_the_table_as_it_was(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    key = keys.admit("stays").public.decode()

    def use(access: Access) -> None:
        keys.revoke("stays")
        (keys.clients / "broken.key").write_text("")
        with pytest.raises(ConfigurationError, match="broken"):
            access.reload(settings(*keys.options))
        assert access.admits(key, "query", "192.0.2.1")

    with_access(keys, use)


def test_keygen_makes_a_client_and_says_what_goes_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--directory", str(tmp_path), "--table"]
    assert ctl.main(["keygen", "compute-1", *place, "--rights", "watch", "send"]) == 0
    told = capsys.readouterr().out
    assert "it may send as every source (no --sources were given), watch" in told
    assert "SECURITY.client_keys" in told

    certificate = curve.read_public(tmp_path / "compute-1.key")
    assert certificate.rights() == {"send", "watch"}
    assert certificate.sources() is None
    secret = curve.read_pair(tmp_path / "compute-1.key_secret")[1].decode()
    assert secret not in told


def test_keygen_makes_a_collectors_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["keygen", "c", "--server", "--directory", str(tmp_path), "--table"]) == 0

    assert f"SECURITY.server_key={tmp_path / 'c.key_secret'}" in capsys.readouterr().out
    assert curve.read_pair(tmp_path / "c.key_secret")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "say what the client may do: --rights"),
        (["a", "--rights", "fly"], "there is no right 'fly'; there are send, ask, watch"),
        (["a", "--rights", "ask", "--sources", "x"], "it needs --rights send"),
        (["a", "--rights", "send", "--sources", "x y"], "is no source's name"),
        (["a", "--server", "--rights", "send"], "has no --rights"),
        (["a/b", "--rights", "send"], "is no name for a file"),
    ],
)
def test_keygen_refuses_what_makes_no_sense(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["keygen", *arguments, "--directory", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["--key", "--server_key"])
def test_half_of_the_keys_makes_no_sense(
    tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl.main(["status", given, str(tmp_path / "x")]) == 2
    other = "--server_key" if given == "--key" else "--key"
    assert f"{other} is missing" in capsys.readouterr().err
