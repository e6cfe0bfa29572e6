"""Files of a mail provider in the landing folder: who bounced is stopped, who opened goes on."""

import json
from pathlib import Path

import pytest

from tests.conftest import AS_OF, SmtpServer, rows
from tests.journeys import DAY, HOUR, Journeys, journey, mail
from upnext.errors import UpnextError
from upnext.journeys.declared import load_policy
from upnext.journeys.policy import Policy
from upnext.loop import ingest_landing


def test_a_provider_tells_what_became_of_messages(content: Path, journeys: Journeys, smtp: SmtpServer) -> None:
    (content / "sources" / "mailgun.yml").write_text("description: Mails, by Mailgun.\nformat: mailgun\n")
    wait = {"do": "wait", "name": "read", "opened": "hello", "within": "3 days", "then": "thanks", "otherwise": "again"}
    journeys.project.policy = Policy(mail_headers={"X-PM-Metadata-message_id": "{message_id}"})
    journeys.project.__dict__.pop("sender", None)
    journeys.person("ada", "bob", "cid")
    journeys.declare(spring=journey(mail("hello"), wait, mail("thanks", wait="0 days", next="end"),
                                    mail("again", wait="0 days"), existing_members="enroll"))  # fmt: skip
    journeys.tick(AS_OF + HOUR, "entered", "ada", "bob", "cid")
    journeys.dispatch(AS_OF + HOUR)
    ids = {str(one["To"]).split("@")[0]: str(one["X-PM-Metadata-message_id"]) for one in smtp.accepted}
    headers = {str(one["To"]).split("@")[0]: str(one["Message-ID"]) for one in smtp.accepted}
    lines = [
        {"event": "opened", "id": "1", "user": "ada"},
        {"event": "failed", "severity": "permanent", "id": "2", "user": "bob"},
        {"event": "delivered", "id": "3", "user": "cid"},
    ]
    folder = journeys.project.settings.landing / "mailgun"
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("".join(
        json.dumps({"event-data": {**line, "timestamp": (AS_OF + 2 * HOUR).timestamp(),
                                   "message": {"headers": {"message-id": headers[line["user"]][1:-1]}}}}) + "\n"
        for line in lines
    ))  # fmt: skip
    done = ingest_landing(journeys.project)
    assert (done.stored, done.rejected) == (2, 1)
    stored = "select event, user_id, properties ->> 'message_id' from raw.events where source = 'mailgun' order by 1"
    assert rows(journeys.project, stored) == [
        ("message bounced", "bob", ids["bob"]), ("message opened", "ada", ids["ada"]),
    ]  # fmt: skip
    journeys.dispatch(AS_OF + 3 * HOUR)
    assert journeys.sent("thanks") == ["ada"]
    journeys.dispatch(AS_OF + 4 * DAY)
    assert (journeys.sent("again"), journeys.messages("user_id, status, reason")[-2:]) == (
        ["cid"], [("bob", "skipped", "bounced"), ("cid", "sent", None)],
    )  # fmt: skip
    (folder / "again.jsonl").write_text((folder / "events.jsonl").read_text() + "\n")
    again = ingest_landing(journeys.project)
    assert (again.stored, again.duplicate) == (0, 2)


def test_headers_of_mails_are_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "policy.yml"
    path.write_text("mail_headers:\n  Bcc: all@otto.example\n")
    with pytest.raises(UpnextError, match=r"policy.yml:2: 'Bcc' is no header of one's own, such as X-PM-KeepID"):
        load_policy([], path)
