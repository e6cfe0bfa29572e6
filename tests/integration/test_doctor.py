"""What the doctor finds: in a healthy home nothing, and each trouble by its name, with what to do."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.conftest import SmtpServer
from upnext import doctor
from upnext.clock import utc_now
from upnext.doctor import Finding, examine
from upnext.loop import build, tick
from upnext.project import Project
from upnext.settings import INTERNAL, PROJECT, VARIABLES, Settings


def found(settings: Settings, **environment: str) -> dict[str, Finding]:
    """The findings by subject; of several about one, the worst."""
    ranks = ("good", "look", "wrong")
    findings: dict[str, Finding] = {}
    for one in examine(settings, environment):
        if one.subject not in findings or ranks.index(one.state) > ranks.index(findings[one.subject].state):
            findings[one.subject] = one
    return findings


def changed(project: Project, **values: Any) -> Settings:
    return replace(project.settings, **values)


def test_a_healthy_home_has_nothing_wrong(project: Project) -> None:
    tick(project, None)
    findings = found(project.settings)
    assert {subject: one for subject, one in findings.items() if one.state == "wrong"} == {}
    assert {subject for subject, one in findings.items() if one.state == "look"} <= {"edge", "connections", "disk"}
    assert findings["declarations"].found.endswith("no mistake")


def test_each_trouble_is_named_with_what_to_do(project: Project, tmp_path: Path) -> None:
    away = changed(project, database_url="postgresql://nobody:secret@127.0.0.1:1/none")
    assert found(away)["database"].state == "wrong"
    assert "secret" not in str(found(away))
    mail = found(changed(project, smtp_url="smtp://127.0.0.1:1", mail_from="ada@customer.example"))["mail"]
    assert (mail.state, "127.0.0.1:1" in mail.found) == ("wrong", True)
    assert found(changed(project, smtp_url="mail.example", mail_from="a@b.example"))["mail"].state == "wrong"
    assert found(changed(project, smtp_url="smtp://127.0.0.1:1", mail_from=None))["mail"].found.startswith(
        "UPNEXT_SMTP_URL is set"
    )
    unread = found(project.settings, UPNEXT_HOMES="x", UPNEXT_EDGE_DATABASE="y")["settings"]
    assert (unread.state, unread.todo) == ("look", "rename or unset UPNEXT_HOMES")
    assert "did you mean 'UPNEXT_HOME'" in unread.found
    assert found(changed(project, base_url="http://otto.example"))["settings"].state == "wrong"
    unreached = found(changed(project, base_url="https://127.0.0.1:1"))["edge"]
    assert (unreached.state, "links of mails" in unreached.todo) == ("wrong", True)
    for odd in ("http://[::1", "https://a b", "https://user:s3cret@x.test", "file:///etc/passwd", "ssh://x"):
        findings = found(changed(project, base_url=odd))
        assert (findings["settings"].state, findings["edge"].state) == ("wrong", "wrong"), odd
        assert "s3cret" not in str(findings)
    assert found(project.settings)["ticks"].found == "none yet"


def test_keys_that_can_be_guessed_and_secrets_that_are_missing(content: Path, project: Project) -> None:
    short = found(changed(project, signing_keys=("abc",)))["settings"]
    assert (short.state, short.found.split()[0]) == ("look", "UPNEXT_SIGNING_KEYS")
    policy = content / "campaigns" / "policy.yml"
    crm = "endpoints: {crm: {url: 'https://crm.example/', secret: UPNEXT_CRM_SECRET}}"
    policy.write_text(policy.read_text().replace("endpoints: {}", crm))
    missing = found(project.settings)["settings"]
    assert (missing.state, "endpoint 'crm': UPNEXT_CRM_SECRET is not a secret" in missing.found) == ("wrong", True)
    assert found(project.settings, UPNEXT_CRM_SECRET=f"whsec_{'A' * 40}")["settings"].state == "good"


def test_a_mail_server_that_answers(project: Project, smtp: SmtpServer) -> None:
    settings = changed(project, smtp_url=smtp.url, mail_from="ada@customer.example")
    assert found(settings)["mail"].state == "good"


def test_old_ticks_limits_of_the_server_and_what_waits(project: Project) -> None:
    build(project, utc_now() - doctor.TICK_AGE * 2, is_explicit=False)
    with project.engine.begin() as connection:
        connection.execute(sa.text("insert into raw.refused_files (source, path, reason, size, modified_at, refused_at)"
                                   " values ('segment', 'x', 'no', 1, now(), now())"))  # fmt: skip
        name = connection.scalar(sa.text("select current_database()"))
        connection.execute(sa.text(f'alter database "{name}" set statement_timeout = 1000'))
    project.engine.dispose()
    findings = found(project.settings)
    assert findings["ticks"].state == "look"
    assert "statement_timeout is 1s" in findings["server settings"].found
    assert "1 files are refused" in findings["state"].found


def test_a_mistake_in_what_is_declared(content: Path, project: Project) -> None:
    (content / "campaigns" / "journeys" / "broken.yml").write_text("description: half of one\n")
    declared = found(project.settings)["declarations"]
    assert (declared.state, "broken.yml" in declared.found) == ("wrong", True)


def test_every_variable_that_is_read_is_listed() -> None:
    parts = ("upnext", "assets", "sensors", "orchestration")
    sources = [path for part in parts for path in (PROJECT / part).rglob("*.py")]
    read = {name for path in sources for name in re.findall(r'"(UPNEXT_[A-Z_]+[A-Z])"', path.read_text())}
    assert read - INTERNAL - {"UPNEXT_COMPLETE"} == set(VARIABLES)
