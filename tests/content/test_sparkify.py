"""The main job on real input: the public Sparkify log, where it lies beside the project."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.conftest import create_database, rows, settings_for
from upnext.events.files import find_files
from upnext.events.ingest import ingest
from upnext.loop import replay
from upnext.project import Project
from upnext.settings import PROJECT

LOG = Path(os.environ.get("UPNEXT_SPARKIFY", PROJECT.parent / "shared" / "data" / "sparkify"))


@pytest.mark.skipif(not LOG.is_dir(), reason="the Sparkify log is not here; UPNEXT_SPARKIFY names its folder")
def test_november_2018(tmp_path: Path, embedded_url: URL) -> None:
    from dataclasses import replace

    settings = replace(settings_for(tmp_path, create_database(embedded_url)), content=PROJECT / "examples" / "sparkify")
    project = Project(settings)
    done = ingest(
        project.engine,
        find_files([LOG], source="sparkify"),
        sources=project.sources,
        loaded_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert (done.received, done.stored, done.rejected) == (8056, 8056, 0)
    assert rows(project, "select count(distinct user_id) from raw.events") == [(97,)]
    assert dict(rows(project, "select event, count(*) from raw.events group by 1")).items() >= {
        "created object": 6820, "login": 92, "viewed upgrade plan": 21, "subscribed to premium plan": 8,
    }.items()  # fmt: skip

    week = timedelta(days=7)
    start = datetime(2018, 11, 9, tzinfo=UTC)
    seen = []
    replay(project, start=start, end=start + 3 * week, every=week, is_sending=False, on_tick=seen.append)
    assert len(seen) == 4
    last = start + 3 * week
    # Counted from the events by a statement that shares nothing with the models.
    expected = rows(
        project,
        "select user_id, count(*) from raw.events where event = 'created object' and user_id is not null"
        " and occurred_at > :at - interval '240 hours' and occurred_at <= :at group by 1 order by 1",
        at=last,
    )
    found = rows(
        project,
        "select user_id, objects_created_10d from features.user_features where objects_created_10d > 0 order by 1",
    )
    assert found == expected
    members = dict(rows(project, "select segment, count(*) from segments.current_members group by 1"))
    assert members["devoted_free_listeners"] > 0
    assert members["drifting_listeners"] > 0
    assert rows(project, "select count(*) from journeys.messages where status <> 'skipped'") == [(0,)]
    project.engine.dispose()
