"""The graph in Dagster: what it shows, and its jobs run for real against the warehouse."""

import importlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL

from assets.events import raw_events_contract
from orchestration.live import GIVES_UP_AFTER
from orchestration.prune import delete_old_runs
from tests.conftest import AS_OF, Product, SmtpServer, content_copy, create_database, rows, settings_for, start
from tests.integration.test_journeys import users
from upnext.alerts import Alert, send
from upnext.analytics.health import CHECKS as RESULTS_CHECKS
from upnext.clock import utc_now
from upnext.dev import prepare
from upnext.errors import UpnextError
from upnext.journeys.dispatch import CHECKS as OUTBOX_CHECKS
from upnext.live import Did
from upnext.project import Project
from upnext.retention.prune import RECENT
from upnext.settings import PROJECT, Settings
from upnext.ticks.lifecycle import loads_to_take_in

BLOCKING = dg.AssetCheckSeverity.ERROR
SNAPSHOT = Path(__file__).parents[1] / "fixtures" / "graph.json"
GROUPS = {"plumbing", "events", "features", "segments", "journeys", "experiences", "analytics", "reports"}


@pytest.fixture
def code_location(tmp_path: Path, embedded_url: URL) -> Iterator[tuple[dg.Definitions, dg.DagsterInstance, Project]]:
    """The definitions as the code server loads them, an instance in the warehouse, and a project beside."""
    settings = settings_for(tmp_path, create_database(embedded_url, "upnext_dagster"))
    environment = {**prepare(settings), "UPNEXT_DATABASE_URL": settings.database_url or "", "UPNEXT_SMTP_URL": ""}
    with mock.patch.dict(os.environ, environment):
        sys.modules.pop("orchestration.definitions", None)
        definitions: Any = importlib.import_module("orchestration.definitions")
        with dg.DagsterInstance.get() as instance:
            project = Project(settings)
            start(project)
            yield definitions.defs(), instance, project
            project.engine.dispose()
        sys.modules.pop("orchestration.definitions", None)


def run(defs: dg.Definitions, instance: dg.DagsterInstance, job: str, **tags: str) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(job).execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def test_one_graph_in_groups(code_location: tuple[dg.Definitions, dg.DagsterInstance, Project]) -> None:
    defs, _, project = code_location
    graph = defs.resolve_asset_graph()
    keys = graph.get_all_asset_keys()
    assert {graph.get(key).group_name for key in keys} == GROUPS
    assert [key for key in keys if not re.match(r"One (row|page) per ", graph.get(key).description or "")] == []
    results = dg.AssetKey(["analytics", "experiment_results"])
    assert dg.AssetKey(["raw", "events"]) in graph.upstream_key_iterator(results)
    segments = {key.path[-1] for key in keys if key.path[0] == "segments"}
    assert segments == project.segments | {
        "ticks", "membership_changes", "members", "evaluations", "primary_segment",
    }  # fmt: skip


def test_what_the_ui_shows_changes_on_purpose_alone(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Project],
) -> None:
    defs, _, _ = code_location
    graph, repository = defs.resolve_asset_graph(), defs.get_repository_def()
    groups: dict[str, list[str]] = {}
    for key in sorted(graph.get_all_asset_keys()):
        groups.setdefault(graph.get(key).group_name, []).append(key.to_user_string())
    checks = [check for key in graph.asset_check_keys for check in [f"{key.asset_key.to_user_string()}: {key.name}"]]
    shown = {
        "groups": groups,
        "jobs": {
            job.name: sorted(
                key.to_user_string() for key in defs.resolve_job_def(job.name).asset_layer.selected_asset_keys
            )
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "checks": sorted(checks),
        "schedules": sorted(one.name for one in repository.schedule_defs),
        "sensors": sorted(one.name for one in repository.sensor_defs),
    }
    if os.environ.get("UPNEXT_WRITE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(shown, indent=2) + "\n")
    assert shown == json.loads(SNAPSHOT.read_text()), "UPNEXT_WRITE_SNAPSHOTS=1 writes it anew"
    for one in [*repository.schedule_defs, *repository.sensor_defs]:
        assert (one.description or "").endswith("."), one.name


def test_each_table_says_its_columns_its_owner_and_how_old_it_may_be(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Project],
) -> None:
    defs, _, project = code_location
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.owners, key
        columns = node.metadata.get("dagster/column_schema")
        if node.group_name in GROUPS - {"plumbing", "reports"} and key.path[-1] not in project.journeys:
            assert isinstance(columns, dg.TableSchema), key
            assert columns.columns, key
    (segment, *_) = sorted(project.segments)
    owners = {owner for one in project.segments for owner in graph.get(dg.AssetKey(["segments", one])).owners}
    assert owners == {"team:growth"}, "a segment's own"
    columns = graph.get(dg.AssetKey(["segments", segment])).metadata["dagster/column_schema"]
    assert {column.name: column.type for column in columns.columns}["user_id"] == "text"
    policies = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy}
    assert {"segments/membership_changes", "analytics/report"} <= policies


def test_the_root_is_imported_without_reading_files_and_loads_without_a_database(tmp_path: Path) -> None:
    code = """
import sys
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from orchestration.definitions import defs
ours = [path for path in opened if path.startswith(sys.argv[1]) and "/.venv/" not in path]
print([path for path in ours if path.endswith((".yml", ".json", ".mjml"))])
print("dbt.cli.main" in sys.modules)
print(len(defs().resolve_asset_graph().get_all_asset_keys()) > 30)
"""
    environment = {
        **os.environ,
        "UPNEXT_HOME": str(tmp_path),
        "UPNEXT_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, str(PROJECT / "")],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-3:] == ["[]", "False", "True"], done.stdout + done.stderr


def test_old_runs_are_deleted(code_location: tuple[dg.Definitions, dg.DagsterInstance, Project]) -> None:
    defs, instance, project = code_location
    ran = run(defs, instance, "prune")
    assert ran.success
    old = project.settings.dbt_target / "runs" / "old"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    assert delete_old_runs(instance, project.settings, before=utc_now() - RECENT) == 0
    assert not old.exists()
    assert instance.get_run_by_id(ran.run_id) is not None
    assert delete_old_runs(instance, project.settings, before=utc_now() + RECENT) == 1
    assert instance.get_run_by_id(ran.run_id) is None
    assert not instance.all_logs(ran.run_id)


def test_the_jobs_run(code_location: tuple[dg.Definitions, dg.DagsterInstance, Project], tmp_path: Path) -> None:
    defs, instance, project = code_location
    (ada,) = users(held_out=False, count=1)
    product = Product(project)
    product.power_user(ada, AS_OF)

    ticked = run(defs, instance, "tick", **{"upnext/as_of": AS_OF.isoformat()})
    assert ticked.success
    checks = ticked.get_asset_check_evaluations()
    names = {check.check_name for check in checks}
    assert names >= {"type_is_known", "track_names_its_event", "somebody_did_it"}
    assert "features_do_not_drift" not in names, "that is the night's"
    assert {check.check_name for check in checks if not check.passed} == {"events_are_fresh"}, "the last one is old"
    assert rows(project, "select as_of from segments.published_ticks") == [(AS_OF,)]

    sizes = [
        event.step_materialization_data.materialization
        for event in ticked.all_events
        if event.is_step_materialization and event.asset_key == dg.AssetKey(["segments", "busy_users"])
    ]
    assert [one.metadata["dagster/row_count"].value for one in sizes] == [1]
    assert "busy_users entered 1" in instance.get_run_by_id(ticked.run_id).tags["upnext/did"]

    dispatched = run(defs, instance, "dispatch", **{"upnext/as_of": AS_OF.isoformat()})
    assert dispatched.success
    assert "enrolled 1" in instance.get_run_by_id(dispatched.run_id).tags["upnext/did"]
    rebuilt = run(defs, instance, "rebuild")
    assert [check.passed for check in rebuilt.get_asset_check_evaluations()] == [True], "nothing drifts"
    assert rows(project, "select step, status from journeys.messages") == [("upgrade_reasons", "sent")]
    assert len(list((tmp_path / "mail" / "new").iterdir())) == 1
    assert rows(project, "select count(*) from experiences.assignments") == [(2,)]

    product.track(ada, "subscribed to premium plan", AS_OF + timedelta(days=1))
    analysed = run(defs, instance, "analysis")
    assert analysed.success
    checks = analysed.get_asset_check_evaluations()
    assert {check.check_name for check in checks} >= {*OUTBOX_CHECKS, *RESULTS_CHECKS}
    shown = analysed.asset_materializations_for_node("results")[0].metadata
    assert "| experiment: arm | what to do |" in str(shown["what to do"].value)
    lifts = [name for name, value in shown.items() if name.startswith("lift of ") and isinstance(value.value, float)]
    assert len(lifts) == len(rows(project, "select from analytics.experiment_results where lift is not null"))
    assert "What worked" in (tmp_path / "report" / "index.html").read_text()
    for name in ("segment_explorer", "experiment_readout", "journey_review"):
        assert "<details" in (tmp_path / "notebooks" / f"{name}.html").read_text()
    assert rows(project, "select sent from analytics.journey_funnel where step = 'upgrade_reasons'") == [(1,)]
    metadata = json.dumps([str(event.event_specific_data) for event in ticked.all_events + dispatched.all_events])
    assert "customer.example" not in metadata
    assert project.url.password not in metadata


@pytest.fixture
def told_by_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who is told of failures; named before the code location, which reads the environment."""
    monkeypatch.setenv("UPNEXT_ALERTS_TO", "data@otto.example")


def test_drift_is_mended_and_told_and_a_click_on_the_features_rebuilds_nothing(
    told_by_mail: None, code_location: tuple[dg.Definitions, dg.DagsterInstance, Project], tmp_path: Path
) -> None:
    defs, instance, project = code_location
    Product(project).power_user("ada", AS_OF)
    assert run(defs, instance, "tick", **{"upnext/as_of": AS_OF.isoformat()}).success
    with project.engine.begin() as connection:
        connection.execute(sa.text("update features.user_features set logins_30d = 99"))
    rebuilds = rows(project, "select count(*) from features.rebuilds")
    features = dg.AssetKey(["features", "user_features"])
    click = defs.resolve_implicit_global_asset_job_def()
    clicked = click.execute_in_process(instance=instance, asset_selection=[features])
    assert [check.passed for check in clicked.get_asset_check_evaluations()] == [True], "as the last rebuild found it"
    assert rows(project, "select count(*) from features.rebuilds") == rebuilds
    rebuilt = run(defs, instance, "rebuild")
    assert [check.passed for check in rebuilt.get_asset_check_evaluations()] == [False]
    assert rows(project, "select logins_30d from features.user_features") == [(10,)]
    (mail,) = (tmp_path / "mail" / "new").iterdir()
    assert "user_features 1" in mail.read_text()


def test_a_journey_of_a_team_is_loaded(
    content: Path, code_location: tuple[dg.Definitions, dg.DagsterInstance, Project]
) -> None:
    *_, project = code_location
    path = project.settings.campaigns / "journeys" / "earn_upgrade.yml"
    path.write_text(path.read_text().replace("owner: growth@otto.example", "owner: growth"))
    sys.modules.pop("orchestration.definitions")
    definitions: Any = importlib.import_module("orchestration.definitions")
    graph = definitions.defs().resolve_asset_graph()
    assert graph.get(dg.AssetKey(["journeys", "earn_upgrade"])).owners == ["team:growth"]


def test_a_warm_process_that_fails_again_and_again_fails_its_run(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    defs, instance, _ = code_location
    begun = utc_now()

    def failing(*_: Any, on_failure: Any, on_look: Any, **__: Any) -> Iterator[Did]:
        for failures in range(1, GIVES_UP_AFTER):
            on_failure("the mail server cannot be used", failures)
        yield Did("tick", begun, {"events": 1})
        monkeypatch.setattr("orchestration.live.REPORTS_EVERY", timedelta(0))
        on_look()
        shown.append(len(instance.all_logs(run_id=ids[0], of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)))
        for failures in range(1, GIVES_UP_AFTER + 1):
            on_failure("the mail server cannot be used", failures)

    shown: list[int] = []
    ids = [str(uuid4())]
    monkeypatch.setattr("orchestration.live.live", failing)
    ran = defs.resolve_job_def("live").execute_in_process(instance=instance, raise_on_error=False, run_id=ids[0])
    assert not ran.success
    failure = ran.failure_data_for_node("tick_and_dispatch")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == "the mail server cannot be used"
    assert shown[0] > 0, "written at a look, though no more work came"


def test_a_part_of_the_models_is_no_tick(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Project],
) -> None:
    defs, instance, project = code_location
    Product(project).power_user("ada", AS_OF)
    events = ("identity_links", "identified_events", "user_events")
    selection = [*(dg.AssetKey(["events", name]) for name in events), dg.AssetKey(["features", "user_features"])]
    job = defs.resolve_job_def("tick")
    done = job.execute_in_process(instance=instance, asset_selection=selection)
    assert done.success
    assert rows(project, "select count(*) from segments.ticks") == [(0,)]


def test_a_broken_contract_blocks_the_tick(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Project],
) -> None:
    defs, instance, project = code_location
    product = Product(project)
    product.store("purchase", AS_OF, user_id="ada")
    product.store("track", AS_OF, user_id="ada")
    product.store("track", AS_OF, event="login")
    ticked = run(defs, instance, "tick", **{"upnext/as_of": AS_OF.isoformat()})
    assert not ticked.success
    checks = ticked.get_asset_check_evaluations()
    failed = {check.check_name for check in checks if not check.passed and check.severity == BLOCKING}
    assert failed == {"type_is_known", "track_names_its_event", "somebody_did_it"}
    assert rows(project, "select count(*) from segments.ticks") == [(0,)]
    assert all(spec.blocking for spec in raw_events_contract.check_specs)


def test_every_check_is_in_a_job_and_every_job_has_a_description(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Project],
) -> None:
    defs, _, _ = code_location
    declared = set(defs.resolve_asset_graph().asset_check_keys)
    in_jobs = {
        key
        for name in ("tick", "dispatch", "analysis", "rebuild")
        for key in defs.resolve_job_def(name).asset_layer.asset_graph.asset_check_keys
    }
    assert declared - in_jobs == set()
    assert all(job.description for job in defs.resolve_all_job_defs() if not job.name.startswith("__"))


def test_the_graph_shows_what_the_warm_process_did(
    code_location: tuple[dg.Definitions, dg.DagsterInstance, Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    defs, instance, project = code_location
    Product(project).power_user("ada", utc_now() - timedelta(days=1))
    line = '{"type": "track", "event": "login", "userId": "ada", "messageId": "m", "timestamp": "2026-03-31T12:00:00Z"}'
    with project.engine.begin() as connection:
        connection.execute(
            sa.text("insert into edge.inbox (source, line) values ('segment', :line)"), {"line": line.encode()}
        )
    # It ends once it has worked.
    monkeypatch.setattr("orchestration.live.LASTS", timedelta(seconds=8))
    ran = run(defs, instance, "live")
    assert ran.success
    told = {event.asset_key for event in ran.get_asset_materialization_events()}
    built = {event.asset_key for event in run(defs, instance, "tick").get_asset_materialization_events()}
    assert built <= told, "all that a tick materializes"
    assert {dg.AssetKey(["segments", name]) for name in project.segments} <= built, "those that dbt leaves out, too"
    assert {dg.AssetKey(["experiences", "live_ctas"]), dg.AssetKey(["journeys", "earn_upgrade"])} <= told
    newest = instance.get_latest_materialization_event(dg.AssetKey(["segments", "ticks"]))
    assert newest is not None
    assert rows(project, "select count(*) from raw.events where event = 'login' and message_id = 'm'") == [(1,)]


def step_error(done: dg.ExecuteInProcessResult) -> str:
    (failed,) = [event for event in done.all_events if event.is_step_failure]
    data = failed.step_failure_data
    assert data.user_failure_data is not None, "not a stack trace"
    return str(data.user_failure_data.description)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select user_id from {{ ref('user_featurs') }} where true",
         "upgrade_seekers.sql:1: segment 'upgrade_seekers' reads 'user_featurs', which does not exist; did you mean"),
        ("select user_id from {{ ref('user_features') }} where logns_30d > 1",
         "upgrade_seekers.sql:1: segment 'upgrade_seekers' reads 'logns_30d', which user_features does not have; did"),
        ("select f.user_id from {{ ref('user_features') }} as f join {{ ref('user_features') }} as g using (user_id)"
         " where f.logns_30d > 1",
         "dbt failed: models/segments/upgrade_seekers.sql: column 'logns_30d' does not exist; did you mean 'logins_30"),
    ],
)  # fmt: skip
def test_one_bad_model_fails_with_the_line_of_the_command_line(
    content: Path, code_location: tuple[dg.Definitions, dg.DagsterInstance, Project], text: str, message: str,
) -> None:  # fmt: skip
    defs, instance, project = code_location
    Product(project).power_user("ada", AS_OF)
    path = content / "models" / "segments" / "upgrade_seekers.sql"
    right = path.read_text()
    path.write_text(text)
    failed = run(defs, instance, "tick", **{"upnext/as_of": AS_OF.isoformat()})
    assert not failed.success
    assert message in step_error(failed)
    with project.engine.connect() as connection:
        assert loads_to_take_in(connection) > 0, "the sensor tries again while events wait"
    path.write_text(right)
    assert run(defs, instance, "tick", **{"upnext/as_of": AS_OF.isoformat()}).success
    with project.engine.connect() as connection:
        assert loads_to_take_in(connection) == 0


def test_a_mistake_in_a_journey_leaves_the_graph_and_is_told_by_its_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code_location: tuple[dg.Definitions, dg.DagsterInstance, Project]
) -> None:
    _, instance, _ = code_location
    path = content_copy(tmp_path / "content") / "campaigns" / "journeys" / "earn_upgrade.yml"
    path.write_text(path.read_text().replace("segment: busy", "segmnt: busy"))
    monkeypatch.setenv("UPNEXT_CONTENT", str(tmp_path / "content"))
    sys.modules.pop("orchestration.definitions", None)
    defs = importlib.import_module("orchestration.definitions").defs()
    assert dg.AssetKey(["journeys", "earn_upgrade"]) in defs.resolve_asset_graph().get_all_asset_keys()
    failed = run(defs, instance, "tick")
    assert "earn_upgrade.yml:3: unknown key 'segmnt'; did you mean 'segment'?" in step_error(failed)


def test_an_alert_goes_by_call_and_by_mail(tmp_path: Path, smtp: SmtpServer) -> None:
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        "UPNEXT_HOME": str(tmp_path), "UPNEXT_SMTP_URL": smtp.url, "UPNEXT_MAIL_FROM": "Otto <hello@otto.example>",
        "UPNEXT_ALERTS_TO": "data@otto.example", "UPNEXT_ALERTS_URL": f"http://127.0.0.1:{server.server_port}/x",
    }  # fmt: skip
    send(Settings.from_environment(environment), Alert("Upnext: tick failed", "a line"))
    server.shutdown()
    assert json.loads(got[0]) == {"text": "Upnext: tick failed\na line"}
    assert [(message["To"], message["Subject"]) for message in smtp.accepted] == [
        ("data@otto.example", "Upnext: tick failed")
    ]
    send(Settings.from_environment(environment), Alert("by mail alone", "y"))
    assert smtp.accepted[-1]["Subject"] == "by mail alone", "one of the two is enough"
    with pytest.raises(UpnextError, match="UPNEXT_ALERTS_URL does not take the alert"):
        send(Settings.from_environment({**environment, "UPNEXT_ALERTS_TO": ""}), Alert("x", "y"))
