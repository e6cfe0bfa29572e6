"""Tombstones: which texts they match, and what a line of any shape names."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from upnext.erased import ADDRESS, USER, VISITOR, Keys, Tombstones, kind_and_id, tokens

KEYS = Keys(lambda: ["new", "old"])


def buried(*people: tuple[str, str]) -> Tombstones:
    return Tombstones({one: None for person in people for one in KEYS.hashes(*person)[1:]}, KEYS.read())


def test_an_id_matches_by_its_kind_and_by_any_key() -> None:
    erased = buried((USER, "ada"), (ADDRESS, "Ada@Customer.example"))
    assert erased.names(USER, "ada")
    assert not erased.names(VISITOR, "ada")
    assert not erased.names(USER, "Ada")
    assert erased.names(ADDRESS, "ada@customer.EXAMPLE")
    assert not erased.names(USER, None)
    assert not Tombstones()
    assert "ada" not in repr(erased)
    assert "old" not in repr(erased)


@pytest.mark.parametrize("written", ["k@müller.de", "K@Müller.DE", "k@xn--mller-kva.de"])
@pytest.mark.parametrize("erased", ["k@müller.de", "k@xn--mller-kva.de"])
def test_a_domain_has_two_names(written: str, erased: str) -> None:
    assert buried((ADDRESS, erased)).names(ADDRESS, written)
    assert set(KEYS.hashes(ADDRESS, erased)) & set(KEYS.hashes(ADDRESS, written))
    assert not buried((ADDRESS, erased)).names(ADDRESS, "k@muller.de")


def test_another_key_gives_another_hash() -> None:
    assert not Tombstones(dict.fromkeys(KEYS.hashes(USER, "ada")), ["another"]).names(USER, "ada")


def test_who_is_readmitted_was_erased_until_then() -> None:
    back = datetime(2026, 3, 31, 12, tzinfo=UTC)
    by_new, by_old = KEYS.hashes(USER, "ada")
    readmitted = Tombstones({by_old: back}, KEYS.read())
    assert readmitted.names(USER, "ada", at=back - timedelta(microseconds=1))
    assert not readmitted.names(USER, "ada", at=back)
    assert readmitted.names(USER, "ada"), "what has no time may be old"
    again = Tombstones({by_old: back, by_new: None}, KEYS.read())
    assert again.names(USER, "ada", at=back), "erased again, by a newer key"


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b'{"userId": "ada", "type": ', {"userId", "ada", "type"}),
        (b'{"userId": 42}', {"userId", "42"}),
        ('{"name": "Zo\\u00eb", "x": "日本"}'.encode(), {"Zoë", "日本"}),
        (b'7,"a ""quoted"" one",login', {"7", 'a "quoted" one', "login"}),
        (b"1;ada|x\t2026", {"1", "ada", "x", "2026"}),
        (b'"never closed', {"never", "closed"}),
        (b"\xff\x00", {"�\x00"}),
        (b"", set()),
    ],
)
def test_the_values_of_a_line(line: bytes, named: set[str]) -> None:
    assert named <= set(tokens(line))


@pytest.mark.parametrize(("user_id", "kind"), [("u1", USER), ("visitor:v", VISITOR)])
def test_the_kind_of_an_id(user_id: str, kind: Any) -> None:
    assert kind_and_id(user_id) == (kind, user_id[-2:] if kind == USER else "v")
