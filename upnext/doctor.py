"""`upnext doctor`: what is wrong with an installation, and what to do about it.

It changes nothing in a warehouse; as with any command, the embedded server starts where no other is named.
"""

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPException
from importlib.metadata import version
from typing import Literal
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from upnext.clock import utc_now
from upnext.errors import UpnextError, nearest, without_values
from upnext.journeys.channels.smtp import SmtpConnection, parse_smtp_url
from upnext.journeys.channels.webhook import targets
from upnext.project import Project
from upnext.segments.membership import not_evaluated
from upnext.settings import INTERNAL, VARIABLES, Settings
from upnext.sql import SQL

State = Literal["good", "look", "wrong"]
LEAST_SERVER = 150_000
"""Postgres 15, as `server_version_num` counts."""
LEAST_FREE = 2 * 1024**3
WITHIN = 5.0
"""Seconds for another machine to answer."""
CLOCKS_APART = timedelta(seconds=5)
TICK_AGE = timedelta(hours=2)
LEAST_CONNECTIONS = 20
LEAST_OF_A_KEY = 32


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do where it is not good."""

    subject: str
    state: State
    found: str
    todo: str = ""


def examine(settings: Settings, environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield the findings, one after the other. Nothing that is found stops the others."""
    project = Project(settings)
    yield from _versions()
    yield from _variables(project, environment)
    yield _declared(project)
    yield _disk(settings)
    yield from _database(project)
    yield _mail_server(settings)
    yield _edge(settings)


def _versions() -> Iterator[Finding]:
    names = ("dagster", "dbt-core", "dbt-postgres", "sqlalchemy", "psycopg")
    found = ", ".join(f"{name} {version(name)}" for name in names)
    yield Finding("versions", "good", f"Upnext {version('upnext')}, Python {platform.python_version()}, {found}")


def _variables(project: Project, environment: Mapping[str, str]) -> Iterator[Finding]:
    secrets = _secrets(project)
    stated = sorted(name for name, value in environment.items() if name.startswith("UPNEXT_") and value)
    for name in stated:
        if name not in VARIABLES and name not in INTERNAL and name not in secrets and "_TEST_" not in name:
            yield Finding(
                "settings",
                "look",
                f"{name} is set, and nothing reads it{nearest(name, VARIABLES)}",
                f"rename or unset {name}",
            )
    if project.settings.base_url is not None and not _is_address(project.settings.base_url):
        yield Finding(
            "settings", "wrong", "UPNEXT_BASE_URL is no https address",
            "set it to one such as https://up.otto.example: links of mails begin with it",
        )  # fmt: skip
    short = [name for name, keys in _keys(project.settings).items() if any(len(key) < LEAST_OF_A_KEY for key in keys)]
    for name in short:
        yield Finding(
            "settings", "look", f"{name} has a key of fewer than {LEAST_OF_A_KEY} characters, which can be guessed",
            "put a new one before it, as `openssl rand -base64 32` prints one",
        )  # fmt: skip
    with suppress(UpnextError):
        endpoints = project.policy.endpoints
        try:
            targets(endpoints, environment)
        except UpnextError as error:
            yield Finding("settings", "wrong", str(error), "set the variable: calls of webhooks wait until then")
    yield Finding("settings", "good", f"home {project.settings.home}; set: {', '.join(stated) or 'nothing'}")


def _keys(settings: Settings) -> dict[str, Sequence[str]]:
    return {"UPNEXT_SIGNING_KEYS": settings.signing_keys, "UPNEXT_ERASURE_KEYS": settings.erasure_keys}


def _is_address(base: str) -> bool:
    """Whether links may begin with it: https without a login, or this machine."""
    try:
        parts = urlsplit(base)
        _ = parts.port
    except ValueError:
        return False
    is_near = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    return bool(parts.hostname) and (is_near or parts.scheme == "https") and "@" not in parts.netloc and " " not in base


def _secrets(project: Project) -> set[str]:
    """Return the variables that endpoints of the policy name."""
    try:
        return set(re.findall(r"UPNEXT_[A-Z0-9_]+", str(msgspec.to_builtins(project.policy.endpoints))))
    except UpnextError:
        return set()


def _declared(project: Project) -> Finding:
    try:
        project.check()
    except UpnextError as error:
        # What is wrong with a variable is told where it is looked at.
        if not str(error).startswith("UPNEXT_"):
            return Finding("declarations", "wrong", str(error), "mend the file; `upnext check` reads it again")
    journeys, experiences, segments = len(project.journeys), len(project.experiences), len(project.segments)
    return Finding(
        "declarations", "good", f"{segments} segments, {journeys} journeys, {experiences} experiences, no mistake"
    )


def _disk(settings: Settings) -> Finding:
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1024**3:.1f} GB free at {settings.home}"
    if free < LEAST_FREE:
        return Finding("disk", "wrong" if free < LEAST_FREE / 8 else "look", found, "make room, or move UPNEXT_HOME")
    return Finding("disk", "good", found)


def _database(project: Project) -> Iterator[Finding]:
    try:
        engine = project.engine
    except UpnextError as error:
        yield Finding("database", "wrong", str(error), "start it, or correct UPNEXT_DATABASE_URL")
        return
    for look in (_server, _clock, _connections, _defaults, _tick, _state):
        try:
            with engine.connect() as connection:
                yield look(connection)
        except sa.exc.DBAPIError as error:
            yield Finding("database", "wrong", without_values(str(error.orig)), "see the log of the server")


def _server(connection: Connection) -> Finding:
    number = int(connection.scalar(sa.text("show server_version_num")) or 0)
    size = connection.scalar(sa.text("select pg_size_pretty(pg_database_size(current_database()))"))
    found = f"Postgres {number // 10_000}, {size}"
    if number < LEAST_SERVER:
        return Finding("database", "wrong", found, "Upnext needs Postgres 15 or newer")
    return Finding("database", "good", found)


def _clock(connection: Connection) -> Finding:
    theirs: datetime = connection.scalar(sa.text("select clock_timestamp()"))
    apart = abs(theirs - utc_now())
    if apart > CLOCKS_APART:
        found = f"this machine and the database are {apart.total_seconds():.0f} s apart"
        return Finding("clock", "wrong", found, "let both follow a time server; due steps go by these clocks")
    return Finding("clock", "good", "this machine and the database agree")


def _connections(connection: Connection) -> Finding:
    most = int(connection.scalar(sa.text("show max_connections")) or 0)
    used = int(connection.scalar(sa.text("select count(*) from pg_stat_activity")) or 0)
    found = f"{used} of {most} connections in use"
    if most - used < LEAST_CONNECTIONS:
        return Finding("connections", "look", found, "raise max_connections, or put a pooler in session mode before it")
    return Finding("connections", "good", found)


def _defaults(connection: Connection) -> Finding:
    """Report settings of the server or the user that make long statements fail."""
    limits = {
        name: connection.scalar(sa.text(f"show {name}"))
        for name in ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
        if connection.scalar(sa.text("select count(*) from pg_settings where name = :name"), {"name": name})
    }
    short = {name: value for name, value in limits.items() if value not in ("0", None)}
    if short:
        found = ", ".join(f"{name} is {value}" for name, value in short.items())
        return Finding(
            "server settings", "look", found, "a first tick over a long history may take longer; set it to 0"
        )
    return Finding("server settings", "good", "no limit ends a long tick")


def _tick(connection: Connection) -> Finding:
    as_of: datetime | None = connection.scalar(SQL["published_as_of"])
    if as_of is None:
        return Finding("ticks", "look", "none yet", "load events, then `upnext tick`, or `make dev`")
    age, found = utc_now() - as_of, f"the newest is of {as_of:%Y-%m-%d %H:%M} UTC"
    if age < -CLOCKS_APART:
        return Finding("ticks", "look", f"{found}, in the future", "as_of never goes back: ticks repeat it until then")
    if age > TICK_AGE:
        return Finding("ticks", "look", found, "Dagster's daemon runs the schedule: `make dev`, or its service")
    return Finding("ticks", "good", found)


def _state(connection: Connection) -> Finding:
    held = [row.segment for row in connection.execute(SQL["held"])]
    drift, refused = connection.scalar(SQL["drift"]), connection.scalar(SQL["count_refused_files"])
    waiting = connection.execute(SQL["inbox"]).one().waiting
    troubles = [
        *(f"the last change of segment '{segment}' is held (`upnext release {segment}`)" for segment in held),
        *(
            f"segment '{name}' was not evaluated: {error} (see docs/segments.md)"
            for name, error in not_evaluated(connection.engine).items()
        ),
        *([f"{drift} rows drifted (`upnext rebuild` mends them)"] if drift else []),
        *([f"{refused} files are refused (`upnext rejected` says why)"] if refused else []),
        *([f"{waiting:,} lines wait in the inbox"] if waiting > 100_000 else []),
    ]
    if troubles:
        return Finding("state", "look", "; ".join(troubles), "run the command, or read the page, in brackets")
    return Finding("state", "good", "nothing is held, refused or wrong")


def _mail_server(settings: Settings) -> Finding:
    if settings.smtp_url is None:
        return Finding("mail", "good", f"mails are caught in {settings.maildir}; UPNEXT_SMTP_URL sends them")
    try:
        address = parse_smtp_url(settings.smtp_url)
        _ = settings.sender_address
    except UpnextError as error:
        return Finding("mail", "wrong", str(error), "correct the variable")
    connection = SmtpConnection(address, WITHIN)
    try:
        connection.open()
    except UpnextError as error:
        return Finding("mail", "wrong", str(error), "correct UPNEXT_SMTP_URL, or start the server")
    connection.close()
    login = ", and takes the login" if address.user else ""
    return Finding("mail", "good", f"{address.host}:{address.port} answers{login}")


def _edge(settings: Settings) -> Finding:
    base = settings.base_url or settings.edge_url or f"http://127.0.0.1:8790{settings.edge_prefix}"
    if not _is_address(base):
        return Finding("edge", "wrong", "its address cannot be asked", "correct UPNEXT_BASE_URL")
    try:
        with urlopen(f"{base}/readyz", timeout=WITHIN) as answer:  # noqa: S310 - our own address
            answer.read()
    except (URLError, OSError, ValueError, HTTPException) as error:
        found = f"{base} does not answer ({type(error).__name__})"
        if settings.base_url is None:
            return Finding("edge", "look", found, "`make dev` or `upnext edge` starts it, if pages send events")
        return Finding("edge", "wrong", found, "links of mails lead there: start `upnext edge`, or mend the proxy")
    return Finding("edge", "good", f"{base} can store events")
