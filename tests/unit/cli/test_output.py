"""What commands print."""

import json

import pytest

from upnext.cli.output import show


def test_a_list_is_a_line_for_each_and_leaves_the_table_as_wide_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    people = [f"user{number}" for number in range(200)]
    show(
        {"size": 200, "by plan": {"basic": 3}, "entering_ids": [*people, "a\x1b[2J"], "leaving_ids": []},
        False,
        title="T",
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [["T"], ["size", "200"], ["by", "plan:", "basic", "3"]]
    assert [line.rstrip() for line in lines[3:]] == [
        "entering_ids:", *(f"  {name}" for name in people), "  a\\x1b[2J", "leaving_ids: none",
    ]  # fmt: skip
    show({"ids": people}, True, title="T")
    assert json.loads(capsys.readouterr().out) == {"ids": people}
