"""Content is a folder: what ships, what `upnext init` writes, and another company's, each checked and run."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy.engine import URL

from tests.conftest import AS_OF, Cli, Product, content_copy, create_database, rows, settings_for, start
from upnext.cli.group import commands
from upnext.errors import UpnextError
from upnext.loop import build, tick
from upnext.operations import checks, starter
from upnext.project import Project
from upnext.settings import PROJECT, Settings

EXAMPLES = sorted(path.parent for path in (PROJECT / "examples").glob("*/models"))


@pytest.mark.parametrize("content", [None, *EXAMPLES], ids=lambda path: path.name if path else "ships")
def test_content_has_no_mistakes_and_needs_no_database_to_be_read(content: Path | None, tmp_path: Path) -> None:
    settings = replace(Settings.from_environment({}), home=tmp_path, content=content)
    counts = checks.check(Project(settings))
    assert counts["segments"] == (1 if content is not None and content.name == "shop" else 3)
    assert list(tmp_path.iterdir()) == [], "neither a server nor a key is made"


def test_the_units_of_the_segments_that_ship(project: Project) -> None:
    build(project, AS_OF, is_explicit=True)
    done = project.dbt.invoke(["test", "--select", "test_type:unit"])
    assert [result.status for result in done.results] == ["pass"] * 3


def test_a_new_content_is_checked_and_ticks(embedded_url: URL, tmp_path: Path) -> None:
    folder = tmp_path / "content"
    starter.new_content(folder)
    project = Project(replace(settings_for(tmp_path, create_database(embedded_url)), content=folder))
    assert checks.check(project)["messages"] == 1
    start(project, "first_project", "project_banner")
    product = Product(project)
    tick(project, AS_OF)
    product.identify("ada", AS_OF, email="ada@customer.example")
    product.track("ada", "signed up", AS_OF)
    done = tick(project, AS_OF)
    assert done.segments == {"new_without_project entered": 1}
    assert rows(project, "select user_id from segments.new_without_project") == [("ada",)]
    assert rows(project, "select user_id, journey from journeys.entries") == [("ada", "first_project")]
    project.engine.dispose()


def test_nothing_is_written_into_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UpnextError, match="is not empty; name a new folder"):
        starter.new_content(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_that_is_no_content_is_told(cli: Cli, tmp_path: Path) -> None:
    message = cli.fails("check", UPNEXT_CONTENT=str(tmp_path))
    assert f"UPNEXT_CONTENT: {tmp_path} has no folder campaigns/; `upnext init" in message


@pytest.mark.parametrize(
    ("file", "right", "wrong", "message"),
    [
        ("sources/segment.yml", "format: segment", "format: segmnt", "'format' is 'segmnt'; it must be one of"),
        ("models/events/_catalogue.yml", "derived: {}", "derived: {x: {}}", "is missing; it is text"),
        ("models/features/_features.yml", "count_of: login,", "count_of: logn,", "did you mean 'login'"),
        ("models/segments/upgrade_curious.sql", "ref('user_features')", "ref('user_feature')", "did you mean"),
        ("models/analytics/_metrics.yml", "count_of: login}", "count_of: logn}", "did you mean 'login'"),
        ("campaigns/slots.yml", "surfaces: [web]", "surfaces: [wed]", "did you mean 'web'"),
        ("campaigns/journeys/encourage_upgrade.yml", "segment: basic", "segment: basc", "did you mean 'basic_plan"),
        ("campaigns/experiences/upgrade_banner.yml", "segment: basic", "segment: basc", "did you mean 'basic_plan"),
        ("campaigns/templates/check_in.txt", "{{ user.name", "{{ usr.name", "did you mean 'user'"),
        ("campaigns/templates/check_in.txt", "{{ user.name", "{{ user.name | titel }} {{ user.name", "No filter named"),
        ("campaigns/templates/check_in.txt", "Hi", "{{ features.logns_30d or 1 }}", "did you mean 'logins_30d'"),
        ("campaigns/policy.yml", "late_after:", "late_aftr:", "did you mean 'late_after'"),
        ("models/features/_features.yml", "name: user_features", "name: user_feature", "did you mean 'user_features'"),
        ("models/analytics/_metrics.yml", "name: experiment_users", "name: experiment_user", "did you mean"),
        ("models/segments/_segments.yml", "config:", "confg:", "unknown key 'confg'; did you mean 'config'"),
        ("models/segments/_segments.yml", "config:", "meta: {owner: x}\n    config:", "'meta' stands below config"),
        ("models/segments/upgrade_curious.sql", "user_id", "user_id, 1 as x", "selects user_id, x; it must select"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, right: str, wrong: str, message: str
) -> None:
    path = content_copy(tmp_path / "content") / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong, 1))
    monkeypatch.setenv("UPNEXT_CONTENT", str(tmp_path / "content"))
    monkeypatch.setenv("UPNEXT_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(commands, ["check"])
    assert isinstance(done.exception, UpnextError)
    text = str(done.exception)
    assert "\n" not in text
    assert f"{Path(file).name}:" in text
    assert message in text


def test_a_file_that_is_left_out_has_its_defaults(tmp_path: Path) -> None:
    folder = content_copy(tmp_path / "content")
    for name in ("journeys", "experiences"):
        shutil.rmtree(folder / "campaigns" / name)
    (folder / "campaigns" / "policy.yml").unlink()
    (folder / "campaigns" / "slots.yml").unlink()
    counts = checks.check(Project(replace(Settings.from_environment({}), home=tmp_path, content=folder)))
    assert (counts["journeys"], counts["experiences"], counts["slots"]) == (0, 0, 0)
