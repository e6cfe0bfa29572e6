"""The guides to features, segments and journeys, followed word for word."""

import re
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import get_args

from assets.analytics import results
from assets.analytics.statistics import Decision
from assets.experiences.declared import EXPERIENCES, load_experiences
from assets.experiences.definition import Known, Trigger
from assets.journeys.declared import JOURNEYS, load_journeys
from orchestration import dbt
from orchestration.settings import Settings
from orchestration.stages import Platform, build, check_journeys, preview_segment
from tests.conftest import AS_OF, Product, rows

DAY = timedelta(days=1)
GUIDE = (dbt.PROJECT_DIR / "README.md").read_text()
RESULTS_GUIDE = (Path(results.__file__).parent / "README.md").read_text()
EXPERIENCES_GUIDE = (EXPERIENCES / "README.md").read_text()
JOURNEYS_GUIDE = (JOURNEYS / "README.md").read_text()


def block(begin: str, guide: str = GUIDE) -> str:
    """Return the code of a guide that begins with these words."""
    [code] = [code for code in re.findall(r"```\w+\n(.*?)```", guide, re.DOTALL) if code.startswith(begin)]
    return str(code)


def insert(path: Path, before: str, text: str, *, indent: int) -> None:
    whole = path.read_text()
    assert whole.count(before) == 1
    path.write_text(whole.replace(before, textwrap.indent(text, " " * indent) + before))


def test_the_walk_throughs(platform: Platform, product: Product, dbt_project: Path) -> None:
    for day in range(1, 4):
        product.track("ada", "exported report", AS_OF - day * DAY, properties={"rows": 500 * day})
        product.track("bob", "exported report", AS_OF - DAY, properties={"rows": 5000})

    models = dbt_project / "models"
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

    insert(dbt.METRICS, "  - name: capped_moments\n", block("# models/analytics", RESULTS_GUIDE), indent=6)

    platform.dbt = dbt.Dbt(platform.settings, platform.engine.url)
    platform.check()
    build(platform, AS_OF, is_explicit=True)
    assert rows(
        platform, "select user_id, report_days_30d, large_reports from features.user_features order by user_id"
    ) == [("ada", 3, 2), ("bob", 1, 3)]
    assert rows(platform, "select user_id from segments.report_lovers") == [("ada",)]
    assert preview_segment(platform, "report_lovers", with_ids=False).size == 1
    assert {"rows_exported", "has_booked_a_demo", "reports_per_login"} <= set(platform.metrics)
    assert rows(
        platform,
        "select reports_exported, reports_exported__before, rows_exported__before, has_booked_a_demo,"
        " reports_per_login__per from analytics.experiment_users",
    ) == []  # fmt: skip


def test_every_kind_is_explained() -> None:
    from assets.features.definition import KINDS

    for kind in KINDS:
        assert f"`{kind}:" in GUIDE or f"`{kind}`" in GUIDE, kind


def test_the_journey_of_the_guide(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "win_back.yml").write_text(block("# assets/journeys", JOURNEYS_GUIDE))
    platform.journeys = load_journeys(
        segments=platform.segments,
        events=set(platform.catalogue.events),
        features=set(platform.features["user_features"]),
        slots=set(platform.slots),
        policy=platform.policy,
        folder=tmp_path,
    )
    assert check_journeys(platform) == {"win_back": ["hello", "hello.plain", "hello.short", "reminder"]}
    assert all((JOURNEYS / picture).exists() for picture in re.findall(r"pictures/\w+.png", JOURNEYS_GUIDE))


def test_the_experience_of_the_guide(tmp_path: Path) -> None:
    (tmp_path / "report_nudge.yml").write_text(block("# assets/experiences", EXPERIENCES_GUIDE))
    platform = Platform(Settings.from_environment({}))
    known = Known(platform.segments, platform.events, platform.slots, platform.journeys)
    nudge = load_experiences(known, tmp_path)["report_nudge"]
    assert [variant.generic for variant in nudge.variants.values()] == [False, False, True]
    for kind in get_args(Trigger):
        assert f"`{kind.__struct_config__.tag}`" in EXPERIENCES_GUIDE


def test_every_word_of_the_decision_is_explained() -> None:
    for word in get_args(Decision):
        assert f"| `{word}` |" in RESULTS_GUIDE
