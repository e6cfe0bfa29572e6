"""Errors in YAML name the file, the line and the nearest match."""

from pathlib import Path

import pytest

from upnext.declarations import load, load_folder
from upnext.errors import UpnextError
from upnext.journeys.definition import Journey

JOURNEY = """description: A journey.
owner: growth@otto.example
segment: busy_users
existing_members: enroll
reentry: never
exit_on_leaving: true
goal: {any_of: [login], within: 14 days}
holdout: 0.1
steps:
  - {name: one, do: email, after: 0 days, subject: Hi, template: catch_up}
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
    assert load(path, Journey).segment == "busy_users"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("holdout: 0.1", "hold_out: 0.1", "8: unknown key 'hold_out'; did you mean 'holdout'?"),
        (
            "do: email",
            "do: emial",
            "10: 'do' is 'emial'; it must be one of email, cta, webhook, identify",
        ),
        ("template: catch_up", "templete: catch_up", "10: unknown key 'templete'; did you mean 'template'?"),
        ("within: 14 days", "within: a fortnight", "7: 'within' is 'a fortnight'; it must be a length of time such as"),
        ("holdout: 0.1", "holdout: 1.5", "8: 'holdout' is 1.5; it must be a number of at least 0 and below 1"),
        ("reentry: never\n", "", "1: 'reentry' is missing; it is one of always, never or a mapping of after"),
        ("reentry: never", "reentry: nevr", "5: 'reentry' is 'nevr'; it must be one of always, never or a mapping of"),
        ("reentry: never", "reentry: {aftr: 2 days}", "5: unknown key 'aftr'; did you mean 'after'?"),
        ("within: 14 days", "withn: 14 days", "7: unknown key 'withn'; did you mean 'within'?"),
        (
            "within: 14 days",
            "members: x",
            "7: unknown key 'members'; known: any_of, context, features, segment, then, where, within",
        ),
        ("any_of: [login]", "any_of: []", "7: 'any_of' is an empty list; it must be a list, such as [a, b], with one"),
        ("any_of: [login]", "any_of: [5]", "7: 'any_of' is 5; it must be text"),
        ("exit_on_leaving: true", "exit_on_leaving: 1", "6: 'exit_on_leaving' is 1; it must be true or false"),
        ("description: A journey.", "description: 2026-01-01", "1: 'description' is the date 2026-01-01, which counts"),
        ("owner: growth@otto.example", "owner:", "2: 'owner' is empty; it must be text"),
        ("steps:", "steps: [", "10: not valid YAML"),
        ("holdout: 0.1", "holdout: 0.1\non: 3", "9: YAML reads the key 'on' as bool, not as text; put it in quotes"),
        ("do: email, ", "", "10: 'do' is missing; it is one of email, cta, webhook, "),
        ("holdout: 0.1", "holdout: 0.1\nowner: me@otto.example", "9: 'owner' stands here twice"),
    ],
)
def test_mistakes_are_found_by_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert error(tmp_path, JOURNEY.replace(old, new)).startswith(expected)


@pytest.mark.parametrize(("line", "expected"), [
    ("starts_on: 2026-02-30", "11: '2026-02-30' is no value: day is out of range for month"),
    ('ends_on: "2026-11-31"', "11: '2026-11-31' is no time, such as"),
    ("topic: !!timestamp soon", "11: 'soon' is no value"),
    ("topic: &a [*a]", "11: what stands here holds itself, and would never end"),
    ("topic: a\x07b", "11: not valid YAML: "),
])  # fmt: skip
def test_what_no_value_can_be_made_of_has_its_line(tmp_path: Path, line: str, expected: str) -> None:
    assert error(tmp_path, f"{JOURNEY}{line}\n").startswith(expected)


def test_a_file_in_another_encoding_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "some_journey.yml"
    path.write_bytes(JOURNEY.replace("A journey", "Für alle").encode("latin-1"))
    with pytest.raises(UpnextError, match=r"some_journey.yml:1: not valid UTF-8"):
        load(path, Journey)


def test_a_folder_within_the_folder_is_no_place_for_files(tmp_path: Path) -> None:
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "some_journey.yml").write_text(JOURNEY)
    assert load_folder(tmp_path, Journey) == {}, "what an editor hides is nobody's mistake"
    (tmp_path / "2026").mkdir()
    (tmp_path / "2026" / "some_journey.yml").write_text(JOURNEY)
    with pytest.raises(
        UpnextError, match=r"some_journey.yml: nobody looks for it in a folder of its own; move it into"
    ):
        load_folder(tmp_path, Journey)


def test_a_file_is_named_as_in_sql(tmp_path: Path) -> None:
    (tmp_path / "Some Journey.yml").write_text(JOURNEY)
    with pytest.raises(UpnextError, match="the file's name"):
        load_folder(tmp_path, Journey)


def test_a_file_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some_journey.yaml").write_text(JOURNEY)
    with pytest.raises(UpnextError, match="rename it"):
        load_folder(tmp_path, Journey)
