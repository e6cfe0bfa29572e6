"""Names that a journey or a segment may not take, because its view would lie where a table lies."""

from pathlib import Path

import pytest

from tests.conftest import DECLARED
from upnext.dbt import model_folders, other_models
from upnext.errors import UpnextError
from upnext.journeys.mistakes import Names, find_mistakes
from upnext.segments.declared import check_segments
from upnext.warehouse.relations import taken_names


def test_tables_and_views_of_each_subject() -> None:
    assert {"entries", "warm_up", "unread_loads"} <= taken_names("journeys")
    assert {"members", "lists", "published_ticks"} <= taken_names("segments")
    assert "members" not in taken_names("journeys")


@pytest.mark.parametrize("name", ["warm_up", "unread_loads"])
def test_no_journey_has_the_name_of_a_table(name: str) -> None:
    journey = DECLARED.journeys["earn_upgrade"]
    known = Names(
        segments=DECLARED.segment_units, events=DECLARED.events, features=DECLARED.feature_types, templates=(),
        endpoints=(), slots=DECLARED.surfaces, journeys=DECLARED.journeys, broadcasts=(), started=(), topics=(),
    )  # fmt: skip
    assert f"'{name}' is the name of a table; choose another" in [
        one.text for one in find_mistakes(name, journey, known)
    ]


def check(files: dict[str, Path]) -> None:
    check_segments(
        files, known=(), columns={}, never_negative=(), lists=(), folders=model_folders(DECLARED.settings),
        others=other_models(DECLARED.settings),
    )  # fmt: skip


def test_no_segment_has_the_name_of_a_table_or_of_a_folder() -> None:
    [(name, file), *_] = DECLARED.segment_files.items()
    assert name not in taken_names("segments")
    with pytest.raises(UpnextError, match="'ticks' is the name of a table of Upnext's own; choose another"):
        check({"ticks": file})
    with pytest.raises(UpnextError, match="'features' is the name of a folder of models; choose another"):
        check({"features": file})
    for model in ("primary_segment", "user_features"):
        with pytest.raises(UpnextError, match=f"'{model}' is the name of another model; choose another"):
            check({model: file})
    assert not set(DECLARED.segment_files) & other_models(DECLARED.settings)
    with pytest.raises(UpnextError, match="the name of a segment has at most 63 characters"):
        check({"a" * 64: file})
