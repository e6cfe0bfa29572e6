"""Errors in YAML name the file, the line and the nearest match."""

from pathlib import Path

import pytest

from assets.journeys.definition import Journey
from orchestration.declarations import load, load_folder
from orchestration.errors import UpnextError

JOURNEY = """description: A journey.
owner: growth@otto.example
segment: basic_plan_power_users
existing_members: enroll
reentry: never
exit_on_leaving: true
goal: {any_of: [login], within: 14 days}
holdout: 0.1
steps:
  - {name: one, do: email, after: 0 days, subject: Hi, template: check_in}
"""


def error(tmp_path: Path, text: str, name: str = "some_journey.yml") -> str:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UpnextError) as raised:
        load(path, Journey)
    message = str(raised.value)
    assert message.startswith(f"{path}:")
    assert "\n" not in message
    return message.removeprefix(f"{path}:")


def test_a_valid_journey_loads(tmp_path: Path) -> None:
    path = tmp_path / "some_journey.yml"
    path.write_text(JOURNEY)
    assert load(path, Journey).segment == "basic_plan_power_users"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("holdout: 0.1", "hold_out: 0.1", "8: unknown key 'hold_out'; did you mean 'holdout'?"),
        ("do: email", "do: emial", "10: Invalid value 'emial'"),
        ("template: check_in", "templete: check_in", "10: unknown key 'templete'; did you mean 'template'?"),
        ("within: 14 days", "within: a fortnight", "7: Expected `str` matching regex"),
        ("holdout: 0.1", "holdout: 1.5", "8: Expected `float` < 1.0"),
        ("reentry: never\n", "", "1: Object missing required field `reentry`"),
        ("steps:", "steps: [", "10: not valid YAML"),
        ("holdout: 0.1", "holdout: 0.1\nowner: me@otto.example", "9: 'owner' stands here twice"),
    ],
)
def test_mistakes_are_found_by_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert error(tmp_path, JOURNEY.replace(old, new)).startswith(expected)


def test_a_file_is_named_as_in_sql(tmp_path: Path) -> None:
    (tmp_path / "Some Journey.yml").write_text(JOURNEY)
    with pytest.raises(UpnextError, match="the file's name"):
        load_folder(tmp_path, Journey)


def test_a_file_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some_journey.yaml").write_text(JOURNEY)
    with pytest.raises(UpnextError, match="rename it"):
        load_folder(tmp_path, Journey)
