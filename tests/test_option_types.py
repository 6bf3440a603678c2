"""What of a text may be shown to people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectord.option_types import addresses_shown, text_shown, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://a.test", "http://a.test"),
        ("http://a.test/", "http://a.test/"),
        ("http://a.test:9/T0ken", "http://a.test:9"),
        ("https://me:pass@[::1]:9?T0ken", "https://[::1]:9"),
        ("http://me@b@a.test#T0ken", "http://a.test"),
        ("http://a.test\\T0ken", "http://a.test"),
        ("http://T0ken/x@a.test", "http://..."),
        ("http://a.test/hooks/me@T0ken", "http://..."),
        ("me:pass@a.test/path", "a.test"),
        ("a.test/T0ken?x=http://b.test", "a.test"),
        ("T0ken@x://a.test", "x:"),
        ("http:/me:pass@a.test", "..."),
        ("", ""),
    ],
)
def test_of_an_address_scheme_host_and_port_are_shown(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


PIECE = st.text("abcXYZ019._~!$&'()*+,;=:@/?%-", min_size=1, max_size=12)


@given(PIECE, PIECE)
def test_what_is_around_the_host_is_not_shown(before: str, after: str) -> None:
    for text in (f"http://{before}@h.test/{after}", f"http://h.test/{after}"):
        assert without_secrets(text) in ("http://h.test", "http://h.test/", "http://...")


def test_addresses_are_shown_each() -> None:
    assert addresses_shown("'http://a.test/x   b.test/y'") == "http://a.test b.test"


def test_of_other_texts_only_addresses_are_cut() -> None:
    assert text_shown("webhook = http://me:pass@a.test/x y") == "webhook = http://a.test y"
    assert text_shown("a/b?c") == "a/b?c"
