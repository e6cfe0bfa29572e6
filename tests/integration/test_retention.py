"""What is deleted for its age, and that nothing else changes by it."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa
import yaml

from tests.conftest import AS_OF, Product, rows
from tests.integration.test_erase import busy, land, line, results
from tests.journeys import Journeys, journey, mail
from upnext.errors import UpnextError
from upnext.journeys.policy import Landed, Retention
from upnext.loop import analyse_results, ingest_landing, prune_old, rebuild, tick
from upnext.project import Project
from upnext.retention.archive import archive
from upnext.retention.prune import prune

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
KEEP = ["product viewed", "subscribed to basic plan", "subscribed to premium plan", "subscribed newsletter", "login",
        "created object"]  # fmt: skip
POLICY = Retention(after="3 months", keep=KEEP)


@pytest.fixture
def world(project: Project) -> Project:
    """People of two times: those of half a year ago, and those of this month."""
    begin = AS_OF - 200 * DAY
    old = [f"old{number:02}" for number in range(20)]
    land(project, "old.jsonl", [one for user in old for one in busy(user, begin)] + ["no json"]
         + [line("gone", "viewed upgrade plan", begin, context={"groupId": "acme"})])  # fmt: skip
    tick(project, begin)
    land(project, "reactions.jsonl", [
        line(user, f"message {what}", begin + DAY, properties={"message_id": message})
        for user, message in rows(project, "select user_id, message_id from journeys.messages where status = 'sent'")
        for what in ("opened", "clicked")
    ] + [
        line(user, "experience viewed", begin + HOUR, properties={"experience": name, "variant": variant})
        for user, name, variant in rows(project, "select user_id, experience, variant from experiences.assignments")
    ] + [line(user, "subscribed to premium plan", begin + 2 * DAY) for user in old[::2]])  # fmt: skip
    tick(project, begin + 3 * DAY)
    tick(project, begin + 40 * DAY)
    land(
        project,
        "new.jsonl",
        [one for nth in range(20) for one in busy(f"new{nth:02}", AS_OF)] + [line("old00", "login", AS_OF - 2 * HOUR)],
    )
    tick(project, AS_OF - HOUR)
    tick(project, AS_OF)
    return project


def members_by_day(project: Project) -> dict[tuple[str, datetime], int]:
    """The members of each segment at each end of a day, from what is kept on."""
    told = rows(project, "select segment, day, members from segments.daily_changes where day >= '2025-12-01'")
    return {(segment, day): members for segment, day, members in told}


def test_old_events_go_and_nothing_that_is_computed_changes(world: Project) -> None:
    features = "select * from features.user_features where user_id <> 'gone' order by 1"
    account = "select active_users_30d, events_30d, members, members_on_premium from features.account_features"
    before = results(world), rows(world, features), rows(world, account), members_by_day(world)
    members = rows(world, "select * from segments.members order by 1, 2")
    old = "select count(*) from raw.events where occurred_at < '2025-12-01' and type = 'track'"
    [(events,)] = rows(world, old)
    [(kept,)] = rows(world, f"{old} and event = any(:keep)", keep=KEEP)
    done = prune(world.engine, POLICY, as_of=AS_OF)
    assert done["raw.events"] == events - kept > 100
    assert done["journeys.messages"] > 10
    assert rows(world, old) == [(kept,)]
    assert prune(world.engine, POLICY, as_of=AS_OF) == {}, "again is done already"
    tick(world, AS_OF + timedelta(minutes=1))
    after = results(world), rows(world, features), rows(world, account), members_by_day(world)
    for was, now in zip(before, after, strict=True):
        assert now == was
    assert rows(world, "select * from segments.members order by 1, 2") == members
    assert rows(world, "select count(*) from features.user_features where user_id = 'gone'") == [(0,)], "no event left"
    assert {table: drift for table, drift in rebuild(world).items() if drift} == {}
    analyse_results(world, AS_OF + HOUR)
    assert results(world) == before[0]


def test_a_file_of_deleted_events_does_not_bring_them_back(world: Project) -> None:
    prune(world.engine, POLICY, as_of=AS_OF)
    [(before,)] = rows(world, "select count(*) from raw.events")
    old = line("old00", "created ml task", AS_OF - 203 * DAY, **{"context": {"groupId": "acme"}})
    land(world, "again.jsonl", [old, line("late", "login", AS_OF - 300 * DAY), line("late", "exported report", AS_OF)])
    done = ingest_landing(world)
    assert (done.received, done.stored, done.rejected) == (3, 2, 1)
    assert rows(
        world, "select reason, detail, payload <> '' from raw.rejected_events where payload like '%old00%'"
    ) == [("older_than_kept", "occurred before 2025-12-01, from when on events are kept", True)]
    assert rows(world, "select count(*) from raw.events") == [(before + 2,)]


def test_features_that_need_more_stop_it_by_name(content: Path, project: Project) -> None:
    path = content / "campaigns" / "policy.yml"
    declared = yaml.safe_load(path.read_text()) or {}

    def with_policy(*alone: str, **retention: object) -> Project:
        path.write_text(yaml.safe_dump({**declared, "retention": alone[0] if alone else retention}))
        return Project(project.settings)

    told = (
        r"policy\.yml:\d+: user_features\.products_viewed reads 'product viewed' of any age:"
        " name 'product viewed' in `keep`, or give the feature a shorter window"
    )
    with pytest.raises(UpnextError, match=told):
        with_policy(after="13 months").check()
    with pytest.raises(UpnextError, match=told):
        with_policy("13 months").check()
    with pytest.raises(UpnextError, match=r"policy\.yml:\d+: '60 days' is less than 3 months"):
        with_policy("60 days").check()
    with pytest.raises(UpnextError, match="unknown event 'product view'; did you mean 'product viewed'"):
        with_policy(after="13 months", keep=["product view"]).check()
    with pytest.raises(UpnextError, match="'60 days' is less than 3 months"):
        with_policy(after="60 days").check()
    with_policy(after="13 months", keep=KEEP).check()
    journey_file = content / "campaigns" / "journeys" / "earn_upgrade.yml"
    declared_journey = yaml.safe_load(journey_file.read_text())
    declared_journey["goal"]["within"] = "420 days"
    journey_file.write_text(yaml.safe_dump(declared_journey))
    with pytest.raises(
        UpnextError, match="the goal of 'earn_upgrade' is measured for 420 days: keep events for longer"
    ):
        with_policy(after="13 months", keep=KEEP).check()
    assert prune_old(project, AS_OF) == {}, "without a policy nothing goes"


def test_a_new_goal_starts_from_what_is_kept(world: Project) -> None:
    prune(world.engine, POLICY, as_of=AS_OF)
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "update journeys.definitions set definition = jsonb_set(definition, '{goal,within}', '\"13 days\"')"
            " where journey = 'earn_upgrade'"
        )
    analyse_results(world, AS_OF + HOUR)
    assert rows(world, "select distinct user_id like 'new%' from analytics.experiment_users"
                       " where experiment = 'earn_upgrade'") == [(True,)]  # fmt: skip


def test_what_nobody_reads_goes_without_a_policy(journeys: Journeys) -> None:
    begin = AS_OF + DAY
    for nth in range(100):
        journeys.tick(begin + nth * HOUR)
        journeys.write(
            "insert into segments.evaluations (segment, tick_id, definition, looked_at, members_before, entered,"
            " exited, is_beyond_limit, is_held) select 'busy_users', max(tick_id), 'x', 0, 0, 0, :entered, false, false"
            " from segments.ticks", entered=int(nth == 3),
        )  # fmt: skip
    count = "select count(*) from segments.evaluations"
    [(evaluations,)] = rows(journeys.project, count)
    done = prune(journeys.project.engine, None, as_of=begin + 200 * DAY)
    assert rows(journeys.project, count) == [(evaluations - done["segments.evaluations"],)]
    kept = "select exited, count(*) from segments.evaluations where segment = 'busy_users' group by 1 order by 1 desc"
    assert rows(journeys.project, kept) == [(1, 1), (0, 1)], "the one that changed something, and the newest"
    assert done["segments.ticks"] > 90
    journeys.tick(begin + 200 * DAY)


def test_results_are_thinned(project: Project, product: Product) -> None:
    insert = (
        "insert into analytics.journey_funnel (as_of, journey, step, entered, sent, opened, clicked, converted)"
        " select at, 'j', 's', 1, 1, 1, 1, 1 from generate_series(cast(:first as timestamptz), :last, '1 hour') as at"
    )
    with project.engine.begin() as connection:
        connection.execute(sa.text(insert), {"first": AS_OF - 200 * DAY, "last": AS_OF})
    prune(project.engine, None, as_of=AS_OF)
    per = "select count(*) from analytics.journey_funnel where as_of >= :since and as_of < :until"

    def count(since: int, until: int) -> int:
        return int(rows(project, per, since=AS_OF - since * DAY, until=AS_OF - until * DAY)[0][0])

    assert count(30, 0) == 30 * 24
    assert 59 <= count(90, 30) <= 62
    assert 15 <= count(200, 90) <= 18


def test_landed_files_are_packed_and_deleted(project: Project) -> None:
    folder = project.settings.landing / "segment"
    first = land(project, "deep/first.jsonl", [line("ada", "login", AS_OF)])
    packed = folder / "second.jsonl.gz"
    with pa.CompressedOutputStream(str(packed), "gzip") as stream:
        stream.write((line("bob", "login", AS_OF) + "\n").encode())
    content = first.read_bytes()
    ingest_landing(project)
    waiting = land(project, "waiting.jsonl", [line("eve", "login", AS_OF)])
    changed_at = datetime.fromtimestamp(first.stat().st_ctime, AS_OF.tzinfo)

    def at(days: int) -> dict[str, int]:
        landed = Landed(archive_after="7 days", delete_after="90 days")
        settings = project.settings
        return archive(project.engine, settings.landing, settings.archive, project.sources, landed,
                       now=changed_at + days * DAY + HOUR)  # fmt: skip

    assert at(6) == {"archived": 0, "deleted": 0}
    assert at(8) == {"archived": 2, "deleted": 0}
    archived = project.settings.archive / "segment"
    copy = archived / "deep" / "first.jsonl.zst"
    assert pa.input_stream(str(copy), compression="zstd").read() == content
    assert (archived / "second.jsonl.gz").exists()
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [waiting.name], "it is not loaded yet"
    assert ingest_landing(project).stored == 1
    copy.replace(folder / "again.jsonl.zst")
    assert ingest_landing(project).files_already_loaded == 1, "the ledger knows the content"
    of_nobody = project.settings.archive / "gone" / "old.jsonl.zst"
    of_nobody.parent.mkdir()
    of_nobody.write_bytes(b"")
    os.utime(of_nobody, (changed_at.timestamp(), changed_at.timestamp()))
    assert at(100)["deleted"] == 4
    assert not of_nobody.exists(), "its source is declared no more"
    assert [path for path in archived.rglob("*") if path.is_file()] == []


def test_a_refused_file_stays_and_one_of_the_same_name_takes_no_copy_away(project: Project) -> None:
    settings, landed = project.settings, Landed(archive_after="7 days")
    refused = settings.landing / "segment" / "cut.jsonl.gz"
    path = land(project, "export.jsonl", [line("ada", "login", AS_OF)])
    refused.write_bytes(b"\x1f\x8b\x08 no gzip")
    ingest_landing(project)
    at = datetime.fromtimestamp(path.stat().st_ctime, AS_OF.tzinfo) + 8 * DAY

    def pack() -> dict[str, int]:
        return archive(project.engine, settings.landing, settings.archive, project.sources, landed, now=at)

    assert (pack()["archived"], refused.exists()) == (1, True)
    part = settings.archive / "segment" / ".abc.part"
    part.write_text("half of a copy")
    land(project, "export.jsonl", [line("bob", "login", AS_OF)])
    ingest_landing(project)
    assert pack()["archived"] == 1
    copies = [pa.input_stream(str(one), compression="zstd").read() for one in settings.archive.rglob("*.zst")]
    assert sorted(b"ada" in copy for copy in copies) == [False, True]
    assert not part.exists()


def test_the_event_that_let_somebody_in_stays_while_they_are_inside(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    entry = {"segment": None, "existing_members": None, "exit_on_leaving": False, "event": {"any_of": ["book demo"]}}
    journeys.declare(demo=journey(mail("hello", after="300 days"), **entry))
    journeys.dispatch()
    for user in ("ada", "bob"):
        journeys.product.track(user, "book demo", AS_OF + HOUR)
    journeys.dispatch(AS_OF + 2 * HOUR)
    journeys.write("update journeys.entries set ended_at = entered_at, status = 'left' where user_id = 'bob'")
    prune(journeys.project.engine, Retention(after="3 months", keep=[]), as_of=AS_OF + 200 * DAY)
    assert rows(journeys.project, "select user_id from raw.events where event = 'book demo'") == [("ada",)]


def test_a_changed_file_is_not_packed(project: Project) -> None:
    path = land(project, "first.jsonl", [line("ada", "login", AS_OF)])
    ingest_landing(project)
    with path.open("a") as file:
        file.write(line("bob", "login", AS_OF) + "\n")
    landed = Landed(delete_after="1 day")
    settings = project.settings
    assert archive(project.engine, settings.landing, settings.archive, project.sources, landed,
                   now=AS_OF + 10_000 * DAY) == {"archived": 0, "deleted": 0}  # fmt: skip
    assert path.exists()
