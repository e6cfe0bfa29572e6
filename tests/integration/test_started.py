"""Journeys and experiences do nothing until somebody starts them: a new home mails nobody."""

import json
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import URL

from sensors.membership import consumers
from tests.conftest import AS_OF, Cli, Product, SmtpServer, create_database, rows, settings_for
from tests.integration.test_journeys import users
from tests.journeys import Journeys, journey, mail
from upnext.errors import UpnextError
from upnext.journeys.dispatch import dispatch
from upnext.loop import leap, open_tick, tick
from upnext.operations.controls import pause_journey, start, stop
from upnext.operations.previews import preview_journey, preview_segment, status
from upnext.project import Project
from upnext.settings import Settings

DAY = timedelta(days=1)
JOURNEY = "earn_upgrade"


@pytest.fixture
def fresh(embedded_url: URL, tmp_path: Path, smtp: SmtpServer) -> Any:
    """A new home in which nobody has started anything, with somebody whom the product's journey is for."""
    project = Project(settings_for(tmp_path, create_database(embedded_url), smtp.url))
    product = Product(project)
    for user in (*users(held_out=False, count=2), *users(held_out=True, count=1)):
        product.power_user(user, AS_OF)
    yield project
    project.engine.dispose()


def counts(project: Project) -> list[int]:
    tables = ("journeys.entries", "journeys.messages", "experiences.assignments", "experiences.live_ctas")
    return [rows(project, f"select count(*) from {table}")[0][0] for table in tables]


def test_a_new_home_mails_nobody(fresh: Project, smtp: SmtpServer) -> None:
    done = tick(fresh, AS_OF)
    assert done.segments == {"busy_users entered": 3}
    assert counts(fresh) == [0, 0, 0, 0]
    assert smtp.accepted == []
    assert consumers(fresh) == {"experiences": set()}, "no sensor waits for them"
    assert set(status(fresh)["started"].values()) == {"no"}

    found = preview_journey(fresh, JOURNEY)
    assert (found.enrolled, found.held_out, found.messages) == (2, 1, {"upgrade_reasons (email)": 2})
    assert found.entering_ids == users(held_out=False, count=2)
    assert counts(fresh) == [0, 0, 0, 0], "a preview changes nothing"
    assert rows(fresh, "select to_regclass('journeys.earn_upgrade')") == [(None,)]

    start(fresh, "journey", JOURNEY, by="ada")
    tick(fresh, AS_OF + timedelta(hours=1))
    assert len(smtp.accepted) == 2
    assert status(fresh)["started"][JOURNEY].endswith(" by ada")
    assert counts(fresh)[2:] == [0, 0], "nobody has started an experience"
    start(fresh, "experience", "upsell_banner", by="ada")
    assert counts(fresh)[2:] == [3, 3], "it is shown at once"


def test_stopping_ends_a_journey_and_hides_an_experience(fresh: Project, smtp: SmtpServer) -> None:
    for kind, name in (("journey", JOURNEY), ("experience", "upsell_banner")):
        start(fresh, kind, name, by="ada")
        with pytest.raises(UpnextError, match="is started already"):
            start(fresh, kind, name, by="bob")
    tick(fresh, AS_OF)
    assert stop(fresh, "journey", JOURNEY, by="bob") == 3
    stop(fresh, "experience", "upsell_banner", by="bob")
    tick(fresh, AS_OF + 3 * DAY)
    assert len(smtp.accepted) == 2
    assert rows(fresh, "select status, reason, arm, count(*) from journeys.entries group by 1, 2, 3 order by 1") == [
        ("held_out", "holdout of the journey", "held_out", 1), ("left", "journey stopped", "treated", 2),
    ]  # fmt: skip
    assert counts(fresh)[2:] == [3, 0], "assignments stay, and nobody sees anything"
    with pytest.raises(UpnextError, match="is not started"):
        stop(fresh, "journey", JOURNEY, by="bob")
    assert rows(fresh, "select name, is_started, changed_by from upnext.switches order by switch_id") == [
        (JOURNEY, True, "ada"), ("upsell_banner", True, "ada"), (JOURNEY, False, "bob"),
        ("upsell_banner", False, "bob"),
    ]  # fmt: skip


def test_what_runs_is_stopped_whatever_a_colleague_has_misspelt(
    content: Path, fresh: Project, smtp: SmtpServer
) -> None:
    for kind, name in (("journey", JOURNEY), ("experience", "upsell_banner")):
        start(fresh, kind, name, by="ada")
    tick(fresh, AS_OF)
    assert counts(fresh)[3] == 3
    other = next(path for path in (content / "campaigns" / "journeys").glob("*.yml") if path.stem != JOURNEY)
    other.write_text(other.read_text().replace("reentry:", "rentry:"))
    after = Project(fresh.settings)
    with pytest.raises(UpnextError, match="unknown key 'rentry'"):
        after.check()
    with pytest.raises(UpnextError, match="'earn_upgrade' is a journey: see upnext journeys --help"):
        stop(after, "experience", JOURNEY, by="bob")
    with pytest.raises(UpnextError, match="'upsell_banner' is an experience: see upnext experiences --help"):
        pause_journey(after, "upsell_banner")
    pause_journey(after, JOURNEY)
    assert stop(after, "journey", JOURNEY, by="bob") == 3
    stop(after, "experience", "upsell_banner", by="bob")
    assert counts(fresh)[3] == 0, "nobody sees it any more"
    after.engine.dispose()


def test_a_name_that_is_not_declared_has_its_nearest(fresh: Project) -> None:
    with pytest.raises(UpnextError, match="unknown journey 'encourage_upgrad'; did you mean 'earn_upgrade'"):
        start(fresh, "journey", "encourage_upgrad", by="ada")
    with pytest.raises(UpnextError, match="'earn_upgrade' is a journey: see upnext journeys --help"):
        stop(fresh, "experience", JOURNEY, by="ada")
    for preview in (preview_journey, partial(preview_segment, with_ids=False)):
        with pytest.raises(UpnextError, match="no tick yet"):
            preview(fresh, JOURNEY if preview is preview_journey else "busy_users")


def test_on_the_command_line(cli: Cli) -> None:
    assert cli.run("tick", "--as-of", "2026-03-01T00:00:00Z").returncode == 0
    assert "started: earn_upgrade" in cli.run("journeys", "start", JOURNEY).stdout
    assert "is started already" in cli.fails("journeys", "start", JOURNEY)
    assert json.loads(cli.run("journeys", "preview", JOURNEY, "--json").stdout)["enrolled"] == 0
    assert "stopped: 0 users" in cli.run("journeys", "stop", JOURNEY).stdout
    assert "started: upsell_banner" in cli.run("experiences", "start", "upsell_banner").stdout
    assert "shown to nobody" in cli.run("experiences", "stop", "upsell_banner").stdout
    done = cli.run("tick", "--as-of", "2026-06-01T00:00:00Z")
    assert "as_of leaps 92 days, from 2026-03-01 00:00 to 2026-06-01 00:00 UTC" in done.stderr
    found = json.loads(cli.run("status", "--json").stdout)
    assert found["members"] == dict.fromkeys(sorted(found["members"]), 0)
    assert len(found["members"]) == 3
    assert "days" in found["watermarks"]["as_of_age"]


def test_an_experience_is_started_for_the_time_that_it_has(content: Path, cli: Cli) -> None:
    path = content / "campaigns" / "experiences" / "upsell_banner.yml"
    declared = path.read_text()
    path.write_text(f"{declared}ends_at: 2026-07-01T00:00:00Z\n")
    assert "its time is over since 2026-07-01" in cli.fails("experiences", "start", "upsell_banner")
    path.write_text(f"{declared}starts_at: 2099-07-01T00:00:00Z\n")
    done = cli.run("experiences", "start", "upsell_banner")
    assert done.stdout.startswith("started: upsell_banner is shown from 2099-07-01 00:00 UTC on")


def test_mails_do_not_leave_in_the_name_of_the_demo(cli: Cli) -> None:
    told = cli.fails("tick", UPNEXT_SMTP_URL="smtp://127.0.0.1:1")
    assert "UPNEXT_SMTP_URL is set and UPNEXT_MAIL_FROM is not" in told
    assert Settings.from_environment({}).sender_address == "Otto <hello@otto.example>"


def test_a_week_is_no_leap(fresh: Project) -> None:
    assert leap(fresh.engine, AS_OF) is None, "there is nothing before the first tick"
    tick(fresh, AS_OF)
    assert leap(fresh.engine, AS_OF + 7 * DAY) is None
    assert leap(fresh.engine, AS_OF + 7 * DAY + timedelta(seconds=1)) is not None


def test_a_journey_whose_file_is_gone_ends_and_stays_stopped(journeys: Journeys, smtp: SmtpServer) -> None:
    journeys.person("ada", "bob")
    hello = journey(mail("a"), mail("b", after="1 day"))
    journeys.declare(hello=hello, other=journey(segment="lapsed_payers"))
    journeys.dispatch()
    journeys.tick(AS_OF, "entered", "ada", "bob")
    journeys.dispatch()
    journeys.project.journeys = {"other": journeys.project.journeys["other"]}
    assert journeys.dispatch(AS_OF + DAY).left == 2
    assert journeys.entries() == [("ada", "left", "journey removed"), ("bob", "left", "journey removed")]
    journeys.project.journeys = {"hello": hello}
    journeys.dispatch(AS_OF + 2 * DAY)
    assert len(smtp.accepted) == 2
    assert "hello" not in journeys.project.started


def test_a_home_of_other_content_is_left_as_it_is(journeys: Journeys) -> None:
    journeys.person("ada", "bob")
    with open_tick(journeys.project, AS_OF, is_explicit=True) as opened:
        journeys.change(opened, {"ada": "entered"}, "busy_users")
        journeys.change(opened, {"bob": "entered"}, "upgrade_seekers")
    members = "select segment, user_id from segments.members order by 1"
    journeys.project.__dict__["segments"] = {"newcomers"}
    other = r"has members of busy_users, upgrade_seekers, and the content declares none .* UPNEXT_HOME"
    with (
        pytest.raises(UpnextError, match=other),
        open_tick(journeys.project, AS_OF + timedelta(hours=1), is_explicit=True),
    ):
        pass
    assert rows(journeys.project, members) == [("busy_users", "ada"), ("upgrade_seekers", "bob")]
    journeys.project.__dict__["segments"] = {"newcomers", "busy_users"}
    with open_tick(journeys.project, AS_OF + timedelta(hours=1), is_explicit=True):
        pass
    assert rows(journeys.project, members) == [("busy_users", "ada")]


def test_a_restart_makes_up_for_nothing(journeys: Journeys, smtp: SmtpServer) -> None:
    project = journeys.project
    journeys.person("ada", "bob", "cid")
    by_event = {"segment": None, "event": {"any_of": ["exported report"]}, "exit_on_leaving": None}
    journeys.declare(hello=journey(), exports=journey(mail("thanks"), **by_event))
    for name in project.journeys:
        stop(project, "journey", name, by="ada")
    journeys.dispatch(AS_OF)
    journeys.tick(AS_OF + DAY, "entered", "ada")
    journeys.product.track("ada", "exported report", AS_OF + DAY)
    journeys.dispatch(AS_OF + DAY)
    for name in project.journeys:
        start(project, "journey", name, by="ada")
    journeys.dispatch(AS_OF + 2 * DAY)
    journeys.product.track("bob", "exported report", AS_OF + DAY)  # told late: it was while nobody looked
    journeys.product.track("cid", "exported report", AS_OF + 3 * DAY)
    journeys.tick(AS_OF + 3 * DAY, "entered", "cid")
    journeys.dispatch(AS_OF + 3 * DAY)
    assert (journeys.sent("hello"), journeys.sent("thanks")) == (["cid"], ["cid"])


def test_a_dispatch_that_is_under_way_leaves_alone_what_is_stopped(journeys: Journeys, smtp: SmtpServer) -> None:
    project = journeys.project
    journeys.person("ada")
    journeys.declare(hello=journey())
    journeys.dispatch()
    journeys.tick(AS_OF + DAY, "entered", "ada")
    stop(project, "journey", "hello", by="ada")
    # The dispatch had read what is started before.
    dispatch(project.engine, project.policy, project.journeys, only={"hello"}, as_of=AS_OF + DAY)
    assert (journeys.entries(), journeys.messages()) == ([], [])


def test_what_is_declared_no_more_stays_stopped(journeys: Journeys, smtp: SmtpServer) -> None:
    project = journeys.project
    journeys.person("ada")
    journeys.declare(hello=journey())
    journeys.dispatch()
    was = dict(project.journeys)
    project.journeys = {}
    journeys.dispatch(AS_OF + DAY)
    project.journeys = was
    journeys.tick(AS_OF + 2 * DAY, "entered", "ada")
    journeys.dispatch(AS_OF + 2 * DAY)
    assert journeys.entries() == []
    assert "hello" not in project.started
