"""A kind is one entry in Python and one file of SQL, and the two agree."""

import re

import pytest

from upnext.kinds import KINDS, Measure
from upnext.settings import PROJECT

FOLDER = PROJECT / "dbt_project" / "macros" / "kinds"


def parts(kind: str) -> set[str]:
    """Return the macros of a kind, by what they are for."""
    text = (FOLDER / f"{kind}.sql").read_text()
    return set(re.findall(rf"macro {kind}__(\w+)\(", text))


def test_each_kind_has_a_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.sql")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_can_be_computed_where_it_may_be_used(name: str) -> None:
    kind, found = KINDS[name], parts(name)
    if "generated" in found:
        assert found == {"generated"}
        return
    assert ("value" in found) == kind.is_of_users
    assert ("total" in found) == kind.is_of_accounts
    assert ("metric" in found) == kind.is_of_metrics
    assert ("difference" in found) == ("after" in found)
    assert ("empty" in found) == kind.is_of_users
    assert (
        f"{{# {name}: " in (FOLDER / f"{name}.sql").read_text()
        or f"\n    {name}: " in (FOLDER / f"{name}.sql").read_text()
    ), "the file begins with how it is written"


def test_a_kind_is_told_by_its_key() -> None:
    assert Measure(count_of="login").kind == "count_of"
    assert Measure(sum_of="amount", of="bought").selected == ["bought"]
    assert Measure(sequence=["a", "b"], in_="1 hour").selected == ["a", "b"]
    assert Measure(latest="plan", type="page").selected == []
    assert Measure(latest_trait="plan").selected == []
