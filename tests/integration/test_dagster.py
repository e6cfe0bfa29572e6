"""The graph in Dagster: what it shows, and its jobs run for real against the warehouse."""

import json
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest
from sqlalchemy.engine import URL

from assets.analytics.health import TROUBLES as RESULTS_TROUBLES
from assets.events.checks import raw_events_contract
from assets.journeys.checks import TROUBLES as OUTBOX_TROUBLES
from orchestration.instance import prepare
from orchestration.stages import Platform
from tests.conftest import AS_OF, Product, create_database, rows, settings_for, start
from tests.integration.test_journeys import users

BLOCKING = dg.AssetCheckSeverity.ERROR
GROUPS = {"events", "features", "segments", "journeys", "experiences", "analytics"}


@pytest.fixture
def code_location(tmp_path: Path, embedded_url: URL) -> Iterator[tuple[dg.Definitions, dg.DagsterInstance, Platform]]:
    """The definitions as the code server loads them, an instance in the warehouse, and a platform beside."""
    import importlib
    import sys

    settings = settings_for(tmp_path, create_database(embedded_url, "upnext_dagster"))
    environment = {**prepare(settings), "UPNEXT_DATABASE_URL": settings.database_url or "", "UPNEXT_SMTP_URL": ""}
    with mock.patch.dict(os.environ, environment):
        sys.modules.pop("orchestration.definitions", None)
        definitions: Any = importlib.import_module("orchestration.definitions")
        with dg.DagsterInstance.get() as instance:
            platform = Platform(settings)
            start(platform)
            yield definitions.defs, instance, platform
            platform.engine.dispose()
        sys.modules.pop("orchestration.definitions", None)


def run(defs: dg.Definitions, instance: dg.DagsterInstance, job: str, **tags: str) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def test_one_graph_in_six_groups(code_location: tuple[dg.Definitions, dg.DagsterInstance, Platform]) -> None:
    defs, _, platform = code_location
    graph = defs.resolve_asset_graph()
    keys = graph.get_all_asset_keys()
    assert {graph.get(key).group_name for key in keys} == GROUPS
    assert [key for key in keys if not re.match(r"One (row|page) per ", graph.get(key).description or "")] == []
    results = dg.AssetKey(["analytics", "experiment_results"])
    assert dg.AssetKey(["raw", "events"]) in graph.upstream_key_iterator(results)
    segments = {key.path[-1] for key in keys if key.path[0] == "segments"}
    assert segments == platform.segments | {
        "ticks", "membership_changes", "members", "evaluations", "primary_segment",
    }  # fmt: skip


def test_the_jobs_run(code_location: tuple[dg.Definitions, dg.DagsterInstance, Platform], tmp_path: Path) -> None:
    defs, instance, platform = code_location
    (ada,) = users(held_out=False, count=1)
    product = Product(platform)
    product.power_user(ada, AS_OF)

    ticked = run(defs, instance, "tick", **{"upnext/as_of": AS_OF.isoformat()})
    assert ticked.success
    checks = ticked.get_asset_check_evaluations()
    names = {check.check_name for check in checks}
    assert names >= {"type_is_known", "track_names_its_event", "somebody_did_it"}
    assert "features_do_not_drift" not in names, "that is the night's"
    assert {check.check_name for check in checks if not check.passed} == {"events_are_fresh"}, "the last one is old"
    assert rows(platform, "select as_of from segments.ticks where published_at is not null") == [(AS_OF,)]

    dispatched = run(defs, instance, "dispatch", **{"upnext/as_of": AS_OF.isoformat()})
    assert dispatched.success
    rebuilt = run(defs, instance, "rebuild")
    assert [check.passed for check in rebuilt.get_asset_check_evaluations()] == [True], "nothing drifts"
    assert rows(platform, "select step, status from journeys.messages") == [("upgrade_benefits", "sent")]
    assert len(list((tmp_path / "mail" / "new").iterdir())) == 1
    assert rows(platform, "select count(*) from experiences.assignments") == [(2,)]

    product.track(ada, "subscribed to premium plan", AS_OF + timedelta(days=1))
    analysed = run(defs, instance, "analysis")
    assert analysed.success
    checks = analysed.get_asset_check_evaluations()
    assert {check.check_name for check in checks} >= {*OUTBOX_TROUBLES, *RESULTS_TROUBLES}
    shown = analysed.asset_materializations_for_node("results")[0].metadata
    assert "| experiment: arm | what to do |" in str(shown["what to do"].value)
    assert "data:image/png;base64," in str(shown["lift over time"].value)
    page = json.loads((tmp_path / "notebooks" / "what_worked.ipynb").read_text())
    outputs = [output for cell in page["cells"] for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert rows(platform, "select sent from analytics.journey_funnel where step = 'upgrade_benefits'") == [(1,)]
    metadata = json.dumps([str(event.event_specific_data) for event in ticked.all_events + dispatched.all_events])
    assert "customer.example" not in metadata
    assert platform.url.password not in metadata


def test_a_part_of_the_models_is_no_tick(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Platform],
) -> None:
    defs, instance, platform = code_location
    Product(platform).power_user("ada", AS_OF)
    events = ("identity_links", "identified_events", "user_events")
    selection = [*(dg.AssetKey(["events", name]) for name in events), dg.AssetKey(["features", "user_features"])]
    job = defs.resolve_job_def("tick")
    done = job.execute_in_process(instance=instance, asset_selection=selection)
    assert done.success
    assert rows(platform, "select count(*) from segments.ticks") == [(0,)]


def test_a_broken_contract_blocks_the_tick(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Platform],
) -> None:
    defs, instance, platform = code_location
    product = Product(platform)
    product.store("purchase", AS_OF, user_id="ada")
    product.store("track", AS_OF, user_id="ada")
    product.store("track", AS_OF, event="login")
    ticked = run(defs, instance, "tick", **{"upnext/as_of": AS_OF.isoformat()})
    assert not ticked.success
    checks = ticked.get_asset_check_evaluations()
    failed = {check.check_name for check in checks if not check.passed and check.severity == BLOCKING}
    assert failed == {"type_is_known", "track_names_its_event", "somebody_did_it"}
    assert rows(platform, "select count(*) from segments.ticks") == [(0,)]
    assert all(spec.blocking for spec in raw_events_contract.check_specs)
