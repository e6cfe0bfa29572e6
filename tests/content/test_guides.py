"""The guides to features, segments and journeys, followed word for word."""

import re
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import yaml

from tests.conftest import AS_OF, Product, content_copy, rows
from upnext import dbt
from upnext.analytics.decision import Decision
from upnext.experiences.declared import load_experiences
from upnext.experiences.definition import Names, Trigger
from upnext.features.definition import KINDS
from upnext.journeys.declared import load_journeys
from upnext.loop import analyse_results, build
from upnext.operations.checks import check_journeys
from upnext.operations.previews import preview_segment
from upnext.project import Project
from upnext.settings import PROJECT, Settings

DAY = timedelta(days=1)
GUIDE = (PROJECT / "docs/segments.md").read_text()
RESULTS_GUIDE = (PROJECT / "docs/results.md").read_text()
EXPERIENCES_GUIDE = (PROJECT / "docs/experiences.md").read_text()
JOURNEYS_GUIDE = (PROJECT / "docs/journeys.md").read_text()


def block(begin: str, guide: str = GUIDE) -> str:
    """Return the code of a guide that begins with these words."""
    [code] = [code for code in re.findall(r"```\w+\n(.*?)```", guide, re.DOTALL) if code.startswith(begin)]
    return str(code)


def insert(path: Path, before: str, text: str, *, indent: int) -> None:
    whole = path.read_text()
    assert whole.count(before) == 1
    path.write_text(whole.replace(before, textwrap.indent(text, " " * indent) + before))


def test_the_walk_throughs(content: Path, project: Project, product: Product) -> None:
    for day in range(1, 4):
        product.track("ada", "exported report", AS_OF - day * DAY, properties={"rows": 500 * day})
        product.track("bob", "exported report", AS_OF - DAY, properties={"rows": 5000})

    models = content / "models"
    insert(
        models / "features" / "_features.yml", "\n  - name: account_features\n", block("# models/features"), indent=6
    )
    (models / "segments" / "report_lovers.sql").write_text(block("-- models/segments"))
    with (models / "segments" / "_segments.yml").open("a") as file:
        file.write(textwrap.indent(block("- name: report_lovers"), "  "))
    catalogue = models / "events" / "_catalogue.yml"
    catalogue.write_text(catalogue.read_text().replace("derived: {}", "derived:"))
    with catalogue.open("a") as file:
        file.write(textwrap.indent(block("# models/events"), " " * 10))
    large = "- name: large_reports\n  config: {meta: {count_of: exported large report}}\n"
    insert(models / "features" / "_features.yml", "\n  - name: account_features\n", large, indent=6)

    with (models / "analytics" / "_metrics.yml").open("a") as file:
        file.write(textwrap.indent(block("# models/analytics", RESULTS_GUIDE), " " * 6))

    project.dbt = dbt.Dbt(project.settings, project.engine.url)
    project.check()
    build(project, AS_OF, is_explicit=True)
    assert rows(
        project, "select user_id, report_days_30d, large_reports from features.user_features order by user_id"
    ) == [("ada", 3, 2), ("bob", 1, 3)]
    assert rows(project, "select user_id from segments.report_lovers") == [("ada",)]
    assert preview_segment(project, "report_lovers", with_ids=False).size == 1
    assert {"rows_exported", "has_booked_a_demo", "reports_per_login"} <= set(project.metrics)
    analyse_results(project, AS_OF)
    assert rows(
        project,
        "select reports_exported, reports_exported__before, rows_exported__before, has_booked_a_demo,"
        " reports_per_login__per from analytics.experiment_users",
    ) == []  # fmt: skip


def test_every_kind_is_explained() -> None:
    for kind in KINDS:
        assert f"`{kind}:" in GUIDE or f"`{kind}`" in GUIDE, kind


def kinds_of_the_guide() -> list[dict[str, Any]]:
    """Return each example of the table of kinds, as a definition."""
    table = re.search(r"\| kind \| value \|.*?\n\n", GUIDE, re.DOTALL)
    assert table is not None
    cells = [line.split(" | ")[0] for line in table[0].splitlines()[2:]]
    return [yaml.safe_load("{" + example + "}") for cell in cells for example in re.findall(r"`(.+?)`", cell)]


def test_each_kind_of_the_guide_is_computed(content: Path, project: Project, product: Product) -> None:
    catalogue = content / "models" / "events" / "_catalogue.yml"
    declared = yaml.safe_load(catalogue.read_text())
    names = ("a", "b", "c", "bought", "opened", "booked", "viewed")
    declared["models"][0]["config"]["meta"]["events"] |= {name: {"description": name, "owner": "x"} for name in names}
    catalogue.write_text(yaml.safe_dump(declared))
    features = content / "models" / "features" / "_features.yml"
    described = yaml.safe_load(features.read_text())
    examples = {f"kind_{nth}": meta for nth, meta in enumerate(kinds_of_the_guide())}
    examples["reports_30d"] = {"count_of": "exported report", "within": "30 days"}
    described["models"][0]["columns"] += [{"name": name, "config": {"meta": meta}} for name, meta in examples.items()]
    features.write_text(yaml.safe_dump(described))
    assert {next(iter(meta)) for meta in examples.values()} == {
        name for name, kind in KINDS.items() if kind.is_of_users
    }
    project.dbt = dbt.Dbt(project.settings, project.engine.url)
    project.check()
    for nth, name in enumerate(("a", "b", "c", "login")):
        product.track("ada", name, AS_OF - DAY + nth * timedelta(minutes=1))
    build(project, AS_OF, is_explicit=True)
    values = rows(project, f"select {', '.join(examples)} from features.user_features")
    found = {next(iter(meta)): value for meta, value in zip(examples.values(), values[0], strict=True)}
    assert (found["sequence"], found["unfinished"], found["periods_of"], found["ratio_of"]) == (True, 0, 1, 0)


def test_the_journey_of_the_guide(project: Project, tmp_path: Path) -> None:
    campaigns = content_copy(tmp_path / "content") / "campaigns"
    for path in (campaigns / "journeys").glob("*.yml"):
        path.unlink()
    (campaigns / "journeys" / "win_back.yml").write_text(block("# campaigns/journeys", JOURNEYS_GUIDE))
    project.journeys = load_journeys(
        segments=project.segment_units,
        events=set(project.catalogue.events),
        features=project.feature_types,
        slots=project.surfaces,
        policy=project.policy,
        campaigns=campaigns,
    )
    assert check_journeys(project, traits={}) == {"win_back": ["hello", "hello.plain", "hello.short", "reminder"]}
    assert all((PROJECT / "docs" / picture).exists() for picture in re.findall(r"pictures/\w+.png", JOURNEYS_GUIDE))


def test_the_experience_of_the_guide(tmp_path: Path) -> None:
    (tmp_path / "report_nudge.yml").write_text(block("# campaigns/experiences", EXPERIENCES_GUIDE))
    project = Project(Settings.from_environment({}))
    known = Names(project.segment_units, project.events, project.slots, project.journeys)
    nudge = load_experiences(known, tmp_path)["report_nudge"]
    assert [variant.generic for variant in nudge.variants.values()] == [False, False, True]
    for kind in get_args(Trigger):
        assert f"`{kind.__struct_config__.tag}`" in EXPERIENCES_GUIDE


def test_every_word_of_the_decision_is_explained() -> None:
    for word in get_args(Decision):
        assert f"| `{word}` |" in RESULTS_GUIDE
