"""A person erased: looked for in every row, in a dump and in every file, and held against what results said before."""

import gzip
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import AS_OF, UPNEXT, Cli, Product, SmtpServer, place_of, rows, wait_for
from tests.integration.test_export import holding
from tests.journeys import Journeys, journey, mail
from upnext.clock import utc_now
from upnext.erased import Keys, readmit
from upnext.errors import UpnextError
from upnext.events.files import find_files
from upnext.events.ingest import ingest
from upnext.loop import analyse_results, ingest_landing, rebuild, tick
from upnext.people.erase import Erased, erase
from upnext.people.export import export
from upnext.project import Project
from upnext.warehouse.embedded import binaries

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
ADA = "ada-lovelace"
TRACK = {"type": "track", "event": "login"}
RESULTS = (
    "analytics.experiment_moments", "analytics.experiment_arms", "analytics.segment_counts", "analytics.copy_counts",
    "analytics.journey_steps",
)  # fmt: skip


def erased(project: Project, asked: str = ADA) -> Erased:
    return erase(place_of(project), asked, now=AS_OF)


def line(user: str, event: str, at: datetime, **more: Any) -> str:
    stated = {"type": "track", "event": event, "userId": user, "timestamp": at.isoformat(), **more}
    return json.dumps({"messageId": f"{user} {event} {at.isoformat()} {more}", **stated})


def identified(user: str, at: datetime, **more: Any) -> str:
    return json.dumps({
        "type": "identify", "userId": user, "timestamp": at.isoformat(), "messageId": f"{user} identified",
        "anonymousId": f"{user}-phone", "traits": {"email": f"{user}@customer.example"}, **more,
    })  # fmt: skip


def busy(user: str, at: datetime) -> list[str]:
    """What makes somebody a member of busy_users at an instant, with an account."""
    group = {"context": {"groupId": "acme"}}
    return [
        identified(user, at - 9 * DAY, context={"groupId": "acme"}),
        json.dumps({"type": "track", "event": "login", "anonymousId": f"{user}-phone", "messageId": f"{user} before",
                    "timestamp": (at - 10 * DAY).isoformat()}),
        json.dumps({"type": "group", "userId": user, "groupId": "acme", "messageId": f"{user} joined",
                    "timestamp": (at - 9 * DAY).isoformat()}),
        line(user, "subscribed to basic plan", at - 8 * DAY, **group),
        line(user, "product viewed", at - 5 * DAY, **group),
        *(line(user, "login", at - 3 * DAY - nth * HOUR, **group) for nth in range(10)),
        *(line(user, "created ml task", at - 3 * DAY - nth * HOUR, **group) for nth in range(5)),
    ]  # fmt: skip


def with_connection(project: Project, do: Callable[..., None], *values: Any, **more: Any) -> None:
    with project.engine.begin() as connection:
        do(connection, *values, **more)


def land(project: Project, name: str, lines: list[str]) -> Path:
    path = project.settings.landing / "segment" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def results(project: Project) -> dict[str, list[Any]]:
    return {view: sorted(map(repr, rows(project, f"select * from {view}"))) for view in RESULTS}


def found_in_files(project: Project, *texts: str) -> set[str]:
    """The files of the home that hold a text, but for those of the server."""
    home = project.settings.home
    return {
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and "postgres" not in path.parts
        for text in texts
        if text.encode() in (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    }


def dump(project: Project) -> str:
    url = project.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return subprocess.run([binaries() / "pg_dump", url], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def world(project: Project) -> Project:
    """Forty people over a month, in journeys and experiences, with mails that were opened and clicked."""
    begin = AS_OF - 30 * DAY
    people = [ADA, *(f"user{number:02}" for number in range(39))]
    land(project, "month.jsonl", [one for user in people for one in busy(user, begin)] + ['{"userId": "ada-lovelace"}'])
    tick(project, begin)
    land(project, "reactions.jsonl", [
        line(user, f"message {what}", begin + DAY, properties={"message_id": message})
        for user, message in rows(project, "select user_id, message_id from journeys.messages where status = 'sent'")
        for what in ("opened", "clicked")
    ] + [
        line(user, "experience viewed", begin + HOUR, properties={"experience": name, "variant": variant})
        for user, name, variant in rows(project, "select user_id, experience, variant from experiences.assignments")
    ] + [line(user, "subscribed to premium plan", begin + 2 * DAY) for user in people[1::2]])  # fmt: skip
    tick(project, begin + 3 * DAY)
    tick(project, AS_OF)
    return project


def test_nothing_of_the_person_is_left_and_results_stay(world: Project) -> None:
    known = set(holding(world, ADA))
    assert {"raw.events", "raw.rejected_events", "features.user_features", "segments.membership_changes"} <= known
    assert {"experiences.assignments", "journeys.messages", "analytics.experiment_users"} <= known
    before, told = results(world), rows(world, "select count(*) from raw.events")
    counted = rows(world, "select sum(stored), sum(erased) from raw.loads")
    done = erased(world)
    assert done.elsewhere == ()
    assert done.counts["raw.events"] == told[0][0] - rows(world, "select count(*) from raw.events")[0][0] > 20
    assert holding(world, ADA) == {}
    assert ADA not in dump(world)
    assert found_in_files(world, ADA) == set()
    assert results(world) == before
    [(stored, _)] = counted
    [(now_stored, gone)] = rows(world, "select sum(stored), sum(erased) from raw.loads")
    assert (now_stored, gone) == (stored, done.counts["raw.events"])
    with pytest.raises(UpnextError, match="nothing is known"):
        export(place_of(world), ADA, world.settings.home / "out", now=AS_OF)
    assert erased(world).counts == {}, "again is done already"


@pytest.fixture
def caught(project: Project) -> None:
    """No mail server, so that the local catcher has the mails; named before what sends."""
    project.settings = replace(project.settings, smtp_url=None)


def test_mails_of_the_local_catcher_go_also_those_that_a_killed_sender_began(caught: None, world: Project) -> None:
    folder = world.settings.maildir
    hers = [path for path in (folder / "new").iterdir() if f"{ADA}@".encode() in path.read_bytes()]
    others = len(list((folder / "new").iterdir())) - len(hers)
    assert min(len(hers), others) > 0
    hers[0].rename(folder / "cur" / f"{hers[0].name}:2,S")
    (folder / "tmp" / "begun").write_text(f"To: {ADA}@customer.example\nSubject: cut o")
    exported = world.settings.home.parent / f"{world.settings.home.name}.jsonl"
    export(place_of(world), ADA, exported, now=AS_OF)
    shown = [json.loads(text) for text in exported.read_text().splitlines()]
    assert len([one for one in shown if one["table"] == "mail"]) == len(hers)
    assert erased(world).counts["mails"] == len(hers) + 1
    assert found_in_files(world, ADA) == set()
    assert len([path for path in folder.rglob("*") if path.is_file()]) == others


def test_an_outcome_that_is_still_open_goes_with_the_person(world: Project) -> None:
    users = "select coalesce(sum(users), 0), coalesce(sum(open_users), 0) from analytics.experiment_arms"
    [(before, open_before)] = rows(world, users)
    of_them = "select count(*) from analytics.experiment_users where user_id = 'user00' and is_window_over"
    [(closed,)] = rows(world, of_them)
    erased(world, "user00")
    assert rows(world, users) == [(before - 1, open_before - 1)]
    assert rows(world, "select count(*) from analytics.experiment_users where user_id like 'erased:%'") == [(closed,)]
    assert closed > 0


def test_a_new_goal_forgets_what_cannot_be_computed_again(world: Project) -> None:
    erased(world)
    kept = "select count(*) from analytics.experiment_users where user_id like 'erased:%'"
    [(before,)] = rows(world, kept)
    with world.engine.begin() as connection:
        connection.exec_driver_sql(
            "update journeys.definitions set definition = jsonb_set(definition, '{goal,within}', '\"13 days\"')"
            " where journey = 'earn_upgrade'"
        )
    analyse_results(world, AS_OF)
    assert rows(world, kept) == [(before - 1,)]
    days = "select sum(users) from analytics.daily_moments where experiment = 'earn_upgrade' and metric = 'goal'"
    assert rows(world, days) == [(39,)]


def test_all_else_goes_on_exactly(world: Project) -> None:
    account = "select members, events_30d from features.account_features"
    [(members, events)] = rows(world, account)
    recent = "select count(*) from raw.events where user_id = :user and occurred_at > :since"
    [(theirs,)] = rows(world, recent, user=ADA, since=AS_OF - 30 * DAY)
    assert theirs > 0
    before = results(world)
    erased(world)
    again = ingest_landing(world)
    assert (again.received, again.changed) == (0, ()), "the rewritten files are known"
    tick(world, AS_OF + HOUR / 2)
    assert rows(world, account) == [(members - 1, events - theirs)]
    assert results(world) == before
    assert {table: drift for table, drift in rebuild(world).items() if drift} == {}
    analyse_results(world, AS_OF + 2 * HOUR)
    assert results(world) == before
    assert holding(world, ADA) == {}


def test_a_replayed_file_brings_nobody_back(world: Project, smtp: SmtpServer) -> None:
    erased(world)
    mails = len(smtp.ids)
    lines = [*busy(ADA, AS_OF), *busy("newcomer", AS_OF), '{"userId": "ada-lovelace", "type": "track"}',
             line("newcomer", "login", AS_OF, anonymousId="ada-lovelace-phone", messageId="of the same device"),
             json.dumps({"type": "alias", "userId": "newcomer", "previousId": ADA})]  # fmt: skip
    file = land(world, "replayed.jsonl", lines)
    done = tick(world, AS_OF + HOUR)
    theirs = len(busy(ADA, AS_OF)) + 2
    assert (done.ingest["received"], done.ingest["rejected"]) == (len(lines), theirs)
    assert rows(world, "select reason, payload, count(*) from raw.rejected_events group by 1, 2 order by 3 desc") == [
        ("erased", "", theirs - 1), ("no_event", "", 1)
    ]  # fmt: skip
    assert holding(world, ADA) == {}
    assert len(smtp.ids) == mails + len(rows(world, "select from journeys.messages where user_id = 'newcomer'"))
    world.engine.dispose()
    assert file.exists()


def test_who_comes_back_is_readmitted_from_then_on(world: Project, smtp: SmtpServer) -> None:
    erased(world)
    keys, back = Keys.of(world.settings), AS_OF + DAY
    address = f"{ADA}@customer.example"
    with pytest.raises(UpnextError, match="nobody was erased by the id or address 'ada'; nothing has changed"):
        with_connection(world, readmit, keys, [ADA, "ada"], at=back)
    with_connection(world, readmit, keys, [ADA, address, f"visitor:{ADA}-phone"], at=back)
    with_connection(world, readmit, keys, [address], at=back + DAY)
    mails = len(smtp.ids)
    land(world, "replayed.jsonl", busy(ADA, AS_OF))
    later = back + 11 * DAY
    done = tick(world, later - HOUR)
    assert done.ingest["stored"] == 0, "what happened before stays erased"
    land(world, "new.jsonl", busy(ADA, later))
    done = tick(world, later)
    assert done.ingest["rejected"] == 0
    assert rows(world, "select min(occurred_at) from raw.events where user_id = :ada", ada=ADA) == [(later - 9 * DAY,)]
    assert [mail["To"] for mail in smtp.accepted[mails:]] == [address]
    erased(world)
    assert holding(world, ADA) == {}
    land(world, "third.jsonl", [line(ADA, "login", later + HOUR)])
    assert tick(world, later + 2 * HOUR).ingest["stored"] == 0, "erased again, all is refused again"


def test_the_address_under_another_account_is_not_mailed(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person(ADA)
    erased(journeys.project)
    journeys.product.identify("ada2", AS_OF - DAY, email="Ada-Lovelace@customer.example")
    journeys.person("bob")
    journeys.declare(demo=journey(mail("hello")))
    journeys.dispatch()
    journeys.tick(AS_OF + HOUR, "entered", "ada2", "bob")
    journeys.dispatch(AS_OF + HOUR)
    assert journeys.sent("hello") == ["bob"]
    assert rows(journeys.project, "select status, reason from journeys.messages where user_id = 'ada2'") == [
        ("skipped", "erased")
    ]
    assert smtp.recipients == [["bob@customer.example"]]


def test_another_user_of_the_address_keeps_what_is_theirs(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person(ADA)
    journeys.product.identify("son", AS_OF - DAY, email=f"{ADA}@customer.example")
    journeys.declare(demo=journey(mail("hello"), mail("again", after="2 days")))
    journeys.dispatch()
    journeys.tick(AS_OF + HOUR, "entered", ADA, "son")
    journeys.dispatch(AS_OF + HOUR)
    assert journeys.sent("hello") == [ADA, "son"]
    erased(journeys.project)
    assert journeys.messages("user_id, step, status, address") == [("son", "hello", "sent", None)]
    assert journeys.entries("user_id, status") == [("son", "active")]
    journeys.tick(AS_OF + 3 * DAY)
    journeys.dispatch(AS_OF + 3 * DAY)
    assert journeys.messages("step, status, reason") == [("hello", "sent", None), ("again", "skipped", "erased")]
    assert len(smtp.ids) == 2


def test_another_user_of_the_address_stays_stopped(journeys: Journeys) -> None:
    journeys.person(ADA)
    insert = (
        "insert into journeys.suppressions (user_id, channel, address, reason, source, since)"
        " select user_id, 'email', :address, reason, 'link', :at"
        " from (values ('son', 'unsubscribed'), ('cat', 'bounced'), (:ada, 'unsubscribed')) as t (user_id, reason)"
    )
    journeys.write(insert, address=f"{ADA}@customer.example", at=AS_OF, ada=ADA)
    erased(journeys.project)
    assert rows(journeys.project, "select user_id, address, reason from journeys.suppressions") == [
        ("son", "", "unsubscribed")
    ]


def test_a_short_id_takes_no_lines_of_others_along(project: Project) -> None:
    lines = [
        json.dumps({"type": "purchase", "userId": "bob", "messageId": "m1", "properties": {"quantity": 1}}),
        json.dumps({"type": "purchase", "userId": 1, "messageId": "m2"}),
        json.dumps({**TRACK, "userId": "1", "messageId": "m3"}),
    ]
    path = land(project, "short.jsonl", lines)
    ingest_landing(project)
    assert erased(project, "1").counts["raw.rejected_events"] == 1
    assert [one for one in path.read_text().splitlines() if one.strip()] == lines[:1]
    land(project, "later.jsonl", [lines[0].replace("m1", "m4")])
    ingest_landing(project)
    kept = rows(project, "select payload from raw.rejected_events order by load_id")
    assert kept == [(lines[0],), (lines[0].replace("m1", "m4"),)]


def test_an_address_of_two_people_is_an_error_that_names_them(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    journeys.product.identify("bob", AS_OF - DAY, email="ada@customer.example")
    with pytest.raises(UpnextError, match="of 2 people: name one of them by an id, such as 'ada', 'bob'"):
        erased(journeys.project, "ada@customer.example")
    assert len(rows(journeys.project, "select from raw.events")) > 2


def test_calls_that_no_tick_has_taken_in_lead_to_the_visitor_too(project: Project, product: Product) -> None:
    product.track(None, "login", AS_OF - 3 * DAY, anonymous_id="phone-of-ada")
    product.track(None, "login", AS_OF - 3 * DAY, anonymous_id="phone-of-both")
    product.store("identify", AS_OF - 2 * DAY, user_id="bob", anonymous_id="phone-of-both")
    product.store("identify", AS_OF - DAY, user_id=ADA, anonymous_id="phone-of-ada")
    product.store("identify", AS_OF - DAY, user_id=ADA, anonymous_id="phone-of-both")
    erased(project)
    left = rows(project, "select type, user_id, anonymous_id from raw.events order by 1")
    assert left == [("identify", "bob", "phone-of-both"), ("track", None, "phone-of-both")]


def test_what_a_tick_gives_to_another_person_meanwhile_goes_too(project: Project, product: Product) -> None:
    product.track(None, "product viewed", AS_OF - 2 * HOUR, anonymous_id="phone")
    tick(project, AS_OF - HOUR)
    product.store("identify", AS_OF - timedelta(minutes=1), user_id="bob", anonymous_id="phone")

    def link_before(stage: str) -> None:
        if stage == "tables":
            tick(project, AS_OF)

    done = erase(place_of(project), "visitor:phone", now=AS_OF, on_stage=link_before)
    assert done.counts["raw.events"] == 1
    assert rows(project, "select type, person_id, anonymous_id from raw.events") == [("identify", "bob", None)]


def test_a_person_without_events_is_known_by_any_table(journeys: Journeys) -> None:
    journeys.write("insert into experiences.assignments values ('offer', 'ada', 'a', now())")
    assert erased(journeys.project, "ada").counts["experiences.assignments"] == 1


def test_a_file_that_comes_after_the_erasure_is_rewritten_by_another(project: Project) -> None:
    first = [line(ADA, "login", AS_OF), line("bob", "login", AS_OF)]
    land(project, "first.jsonl", first)
    ingest_landing(project)
    erased(project)
    later = land(project, "later.jsonl", [line(ADA, "logout", AS_OF), line("bob", "logout", AS_OF)])
    ingest_landing(project)
    assert erased(project).counts == {"lines of landed files": 1}
    assert ADA not in later.read_text()


def test_addresses_of_pages_with_the_id_go(journeys: Journeys) -> None:
    journeys.person(ADA, "bob")
    urls = [f"https://otto.example/{user}/orders" for user in (ADA, "bob")] + [
        f"https://x.example/?e={ADA}%40customer.example"
    ]
    for url in urls:
        journeys.write("insert into journeys.links (link_id, url) values (:url, :url)", url=url)
    erased(journeys.project)
    assert rows(journeys.project, "select url from journeys.links") == [(urls[1],)]


@pytest.mark.parametrize("user", ['o"brien\\', "42", "Zoë/日本", "ÉMILE", "a b,c;d", "x" * 200])
def test_whatever_the_id_looks_like(project: Project, user: str) -> None:
    named: Any = int(user) if user == "42" else user
    lines = [
        json.dumps({**TRACK, "messageId": f"m{nth}", "userId": who}, ensure_ascii=nth % 2 == 0)
        for nth, who in enumerate([named, "bob", user, "eve"])
    ]
    path = land(project, "ids.jsonl", [*lines, json.dumps({"userId": user, "type": "none"})])
    assert ingest_landing(project).stored == 4
    erased(project, user)
    assert [one for one in path.read_text().splitlines() if one.strip()] == [lines[1], lines[3]]
    assert rows(project, "select user_id from raw.events order by 1") == [("bob",), ("eve",)]
    assert rows(project, "select count(*) from raw.rejected_events") == [(0,)]
    land(project, "again.jsonl", lines)
    assert (ingest_landing(project).rejected, erased(project, user).counts) == (2, {"lines of landed files": 2})


def test_without_the_key_nothing_is_loaded_or_sent(journeys: Journeys, smtp: SmtpServer, tmp_path: Path) -> None:
    project = journeys.project
    journeys.person(ADA, "bob")
    erased(project)
    journeys.declare(demo=journey(mail("hello")))
    journeys.dispatch()
    journeys.tick(AS_OF + HOUR, "entered", "bob")
    (project.settings.home / "erasure_keys").rename(tmp_path / "elsewhere")
    land(project, "more.jsonl", [line("bob", "login", AS_OF)])
    for act in (lambda: ingest_landing(project), lambda: journeys.dispatch(AS_OF + HOUR)):
        with pytest.raises(UpnextError, match="with a key that is not at hand: set UPNEXT_ERASURE_KEYS"):
            act()
    assert smtp.ids == []
    (tmp_path / "elsewhere").rename(project.settings.home / "erasure_keys")
    assert ingest_landing(project).stored == 1
    journeys.dispatch(AS_OF + HOUR)
    assert len(smtp.ids) == 1


def test_a_list_of_the_content_with_the_person_is_an_error_before_anything(journeys: Journeys) -> None:
    journeys.person(ADA)
    journeys.write("insert into segments.lists values ('friends', :id)", id=ADA)
    before = holding(journeys.project, ADA)
    with pytest.raises(UpnextError, match=r"lists/friends\.csv of your content has 'ada-lovelace': take the line out"):
        erased(journeys.project)
    assert holding(journeys.project, ADA) == before


def test_a_list_counts_as_its_file_has_it_now(content: Path, cli: Cli, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text(line(ADA, "login", AS_OF) + "\n")
    assert cli.run("ingest", events).returncode == 0
    file = content / "lists" / "friends.csv"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"user_id\n{ADA}\n")
    assert "lists/friends.csv of your content has 'ada-lovelace'" in cli.fails("erase", ADA, "--yes")
    file.write_text("user_id\nbob\n")
    assert cli.run("erase", ADA, "--yes").returncode == 0


def formats(home: Path) -> Iterator[tuple[str, Path, bytes]]:
    """Files of each format with lines of Ada and of others; what the content is to be without hers."""
    lines = [line("bob", "login", AS_OF), line(ADA, "login", AS_OF), line("eve", "login", AS_OF)]
    plain = "\n".join(lines).encode()
    kept = "\n".join([lines[0], " " * len(lines[1]), lines[2]]).encode()
    segment = home / "landing" / "segment"
    yield "segment", segment / "plain.jsonl", kept
    (segment / "plain.jsonl").write_bytes(plain)
    without = b"\n".join([lines[0].encode(), b"", lines[2].encode()])
    for name, codec in (("a.jsonl.gz", "gzip"), ("b.jsonl.zst", "zstd")):
        path = segment / name
        with pa.CompressedOutputStream(str(path), codec) as stream:
            stream.write(plain.replace(b"login", f"login to {name}".encode()))
        yield "segment", path, without.replace(b"login", f"login to {name}".encode())


def content_of(path: Path) -> bytes:
    codec = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    return path.read_bytes() if codec is None else pa.input_stream(str(path), compression=codec).read()


def test_files_lose_those_lines_and_no_other_byte(project: Project) -> None:
    (project.settings.landing / "segment").mkdir(parents=True)
    wanted = list(formats(project.settings.home))
    before = {path: path.stat().st_ino for _, path, _ in wanted}
    assert ingest_landing(project).stored == 9
    done = erased(project)
    assert done.counts["lines of landed files"] == 3
    for _, path, kept in wanted:
        assert content_of(path) == kept, path.name
        assert list(path.parent.glob(".*")) == []
    plain = project.settings.landing / "segment" / "plain.jsonl"
    assert plain.stat().st_ino == before[plain], "whoever writes it still has it open"
    with plain.open("a") as file:
        file.write("\n" + line("dan", "login", AS_OF) + "\n")
    again = ingest_landing(project)
    assert (again.received, again.stored, again.changed) == (1, 1, ())


SOURCE = """\
description: Rows of a table.
format: {format}
message_id: [id]
event: {{field: what}}
occurred_at: {{field: at, unit: rfc3339}}
user_id: who
properties: [note]
"""


def test_rows_of_csv_and_parquet(content: Path, project: Project) -> None:
    for kind in ("csv", "parquet"):
        (content / "sources" / f"{kind}.yml").write_text(SOURCE.format(format=kind))
        (project.settings.landing / kind).mkdir(parents=True)
    rows_of = [("1", "bob", "a"), ("2", ADA, 'two\n"lines"'), ("3", "eve", "of ada-lovelace"), ("4", ADA, "c")]
    at = (AS_OF - DAY).isoformat()
    quoted = [f'{key},{who},login,{at},"{note.replace(chr(34), 2 * chr(34))}"' for key, who, note in rows_of]
    table = project.settings.landing / "csv" / "table.csv"
    table.write_text("\n".join(["id,who,what,at,note", *quoted]) + "\n")
    columns = {"id": [one for one, _, _ in rows_of], "who": [who for _, who, _ in rows_of], "what": ["login"] * 4,
               "at": [at] * 4, "note": [note for _, _, note in rows_of]}  # fmt: skip
    packed = project.settings.landing / "parquet" / "table.parquet"
    pq.write_table(pa.table(columns), packed)
    assert ingest_landing(project).stored == 8
    size = table.stat().st_size
    erased(project)
    assert table.stat().st_size == size
    assert [one for one in table.read_text().split("\n") if one] == ["id,who,what,at,note", quoted[0], quoted[2]]
    assert pq.read_table(packed).column("who").to_pylist() == ["bob", "eve"]
    again = ingest_landing(project)
    assert (again.received, again.changed) == (0, ())
    with table.open("a") as file:
        file.write(f"5,dan,login,{at},d\n")
    assert ingest_landing(project).stored == 1


def test_files_outside_the_landing_folder_are_named(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.jsonl"
    path.write_text(line(ADA, "login", AS_OF) + "\n")
    ingest(project.engine, find_files([path], source="segment"), sources=project.sources, loaded_at=AS_OF)
    assert erased(project).elsewhere == (str(path),)


def test_another_user_of_the_device_stays(journeys: Journeys) -> None:
    store = journeys.product.store
    store("identify", AS_OF - HOUR, user_id=ADA, anonymous_id="phone")
    store("track", AS_OF - 2 * HOUR, anonymous_id="phone", event="login")
    store("identify", AS_OF, user_id="bob", anonymous_id="phone")
    journeys.merge(AS_OF + HOUR, nobody="somebody")
    erased(journeys.project)
    assert rows(
        journeys.project, "select user_id, anonymous_id from raw.events where user_id in ('bob', 'ada-lovelace')"
    ) == [("bob", None)]
    assert rebuild(journeys.project)["identity_links"] == 0


POINTS = {
    "before the tables": "lock table analytics.stale_days in exclusive mode",
    "in the tables": "lock table journeys.messages in share mode",
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_erasure_is_continued(world: Project, point: str) -> None:
    url = world.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    variables = {**os.environ, "UPNEXT_HOME": str(world.settings.home), "UPNEXT_DATABASE_URL": url}
    lock = world.engine.connect()
    before = results(world)
    lock.exec_driver_sql(f"begin; {POINTS[point]}")
    with subprocess.Popen([UPNEXT, "erase", ADA, "--json"], env=variables, stdout=subprocess.PIPE) as process:
        waits = "select count(*) from pg_stat_activity where wait_event = 'relation'"
        wait_for(lambda: rows(world, waits) != [(0,)], "the erasure to wait")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    lock.close()
    wait_for(lambda: rows(world, "select count(*) from pg_locks where locktype = 'advisory'") == [(0,)], "its locks")
    assert rows(world, "select count(*) > 0 from upnext.erased") == [(True,)], "the kill hit after the tombstones"
    assert "raw.events" in holding(world, ADA), "and before the tables"
    tick(world, AS_OF + HOUR)
    done = subprocess.run([UPNEXT, "erase", ADA, "--json"], env=variables, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["raw.events"] > 20
    assert holding(world, ADA) == {}
    assert found_in_files(world, ADA) == set()
    assert results(world) == before


def test_ticks_and_dispatch_go_on_meanwhile(world: Project) -> None:
    """An erasure between the stages of ticks: whatever it meets, nothing comes back and nothing fails."""
    url = world.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    variables = {**os.environ, "UPNEXT_HOME": str(world.settings.home), "UPNEXT_DATABASE_URL": url}
    for user in (ADA, "user03", "user04"):
        with subprocess.Popen([UPNEXT, "erase", user], env=variables, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                land(world, f"more {utc_now().timestamp()}.jsonl", [line(user, "login", AS_OF)])
                tick(world, None)
        assert process.returncode == 0
        tick(world, None)
        assert holding(world, user) == {}
    assert {table: drift for table, drift in rebuild(world).items() if drift} == {}
