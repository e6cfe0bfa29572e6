"""The parts of a condition that AND joins."""

import pytest

from upnext.segments.near_misses import conjuncts


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("a >= 1", ["a >= 1"]),
        ("(a >= 1 and (b and c))", ["a >= 1", "b", "c"]),
        ("a or b", ["a OR b"]),
        ("a and (b or c)", ["a", "b OR c"]),
        ("not (a and b)", ["NOT (a AND b)"]),
        ("a between 1 and 2 and b", ["a BETWEEN 1 AND 2", "b"]),
        ("a like '50%' and b = ':x'", ["a LIKE '50%'", "b = ':x'"]),
        ("a >=", []),
    ],
)
def test_conjuncts(sql: str, parts: list[str]) -> None:
    assert conjuncts(sql) == parts


def test_a_very_long_condition_is_no_error() -> None:
    assert len(conjuncts(" and ".join(f"a{nth}" for nth in range(3000)))) in (0, 3000)
