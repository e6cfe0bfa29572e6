"""The journeys of the product, and what their versions depend on."""

from pathlib import Path

import msgspec
import pytest

from assets.journeys.definition import as_json, hours, version
from assets.journeys.dispatch import JOURNEYS, load_journeys
from orchestration.dbt import segment_files
from orchestration.errors import UpnextError
from orchestration.settings import Settings

SEGMENTS = set(segment_files(Settings.from_environment({})))


def test_the_two_journeys_of_the_product() -> None:
    journeys = load_journeys(SEGMENTS)
    offsets = {name: [hours(step.after) / 24 for step in journey.steps] for name, journey in journeys.items()}
    assert offsets == {"encourage_upgrade": [0, 2, 5], "reactivate_low_usage_paid": [0, 3, 7]}
    assert {journey.holdout for journey in journeys.values()} == {0.1}


def test_an_unknown_segment_names_the_line_and_the_nearest() -> None:
    with pytest.raises(
        UpnextError, match=r"encourage_upgrade.yml:3: unknown segment .* did you mean 'basic_plan_users'"
    ):
        load_journeys({"basic_plan_users", "low_usage_paid_users"})


def test_a_missing_template_names_the_line_and_the_nearest(tmp_path: Path) -> None:
    text = (JOURNEYS / "encourage_upgrade.yml").read_text().replace("template: premium_reminder", "template: reminder")
    (tmp_path / "encourage_upgrade.yml").write_text(text)
    with pytest.raises(UpnextError, match=r"encourage_upgrade.yml:21: no template 'reminder'; did you mean"):
        load_journeys(SEGMENTS, tmp_path)


@pytest.mark.parametrize("name", ["entries", "messages"])
def test_a_journey_is_not_named_like_a_table(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.yml").write_text((JOURNEYS / "encourage_upgrade.yml").read_text())
    with pytest.raises(UpnextError, match="choose another"):
        load_journeys(SEGMENTS, tmp_path)


def test_the_same_content_is_the_same_version() -> None:
    journey = load_journeys(SEGMENTS)["encourage_upgrade"]
    copy = msgspec.convert(as_json(journey), type(journey))
    assert version(copy) == version(journey)
    assert version(msgspec.structs.replace(journey, holdout=0.2)) != version(journey)
