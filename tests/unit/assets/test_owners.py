"""Owners as Dagster has them."""

import pytest

from assets.owners import declared


@pytest.mark.parametrize(("owner", "shown"), [
    ("growth@otto.example", ["growth@otto.example"]), ("growth", ["team:growth"]), ("Growth Team", []), ("a@b", []),
    ("", []), (None, []),
])  # fmt: skip
def test_an_owner_is_an_address_or_else_a_team(owner: str | None, shown: list[str]) -> None:
    assert declared(owner) == shown
