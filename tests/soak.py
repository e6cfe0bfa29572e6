"""A soak: clients at a third of what an edge can take, while `upnext live` ticks and sends, and a model is edited.

    make soak                        half an hour
    make soak MINUTES=5

The judges are the clients' own ledger (what the edge has said yes to) and the mail server's log. The memory is that of
each program alone (RssAnon), in the second and in the last quarter of the time. The delay of a decision counts from
when it was due, so that a stall is not hidden by clients that wait.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, islice, takewhile
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy.engine import make_url

from tests.benchmarks.edge import SECRET, children, decision, event, exchange, post, send, token_of
from tests.conftest import CONTENT, UPNEXT, SmtpServer, content_copy, create_database, free_port, rows, settings_for
from tests.integration.test_edge import Edge, basic, running
from upnext.clock import utc_now
from upnext.experiences.definition import bucket
from upnext.loop import rebuild
from upnext.project import Project
from upnext.switches import switch
from upnext.warehouse.embedded import EmbeddedServer

JOURNEY, SEGMENT = "earn_upgrade", "busy_users"
POWER_USER = ("subscribed to basic plan", "product viewed", *["login"] * 10, *["created ml task"] * 5)
USERS = 999
CONNECTIONS = 16
NEWCOMER_EVERY, LOOK_EVERY = 2.0, 0.5
"""Seconds between two newcomers, and between two looks at the memory."""
CEILING_SECONDS, LONGEST, SETTLED = 10.0, 300.0, 600.0
# At half, two cores are full: clients, edge, Postgres and ticks share what the edge has while the ceiling is measured.
SHARE = 1 / 3
FLAT = 1.2
CONNECTIONS_NOW = "select count(*) from pg_stat_activity where backend_type = 'client backend'"
RULES = """
    select count(*) from (
        select definition, lag(definition) over (order by tick_id) as before
        from segments.evaluations
        where segment = :segment
    ) as evaluated
    where definition is distinct from before
"""


@dataclass
class Ledger:
    """What the clients know: the ids that the edge took, what it refused, the seconds of each decision, newcomers."""

    taken: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    newcomers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What came of a soak; `faults` are the sentences about what went wrong."""

    faults: list[str]
    figures: dict[str, str]


def newcomers() -> Iterator[str]:
    """Yield users whom the journey treats."""
    return (name for name in map("newcomer{}".format, count()) if bucket(f"journey:{JOURNEY}", name) >= 0.1)


def now() -> str:
    return utc_now().isoformat()


class Clients:
    """Clients of an edge that send at an even pace, whatever it answers."""

    def __init__(self, edge: Edge, ledger: Ledger, *, seed: int) -> None:
        self._edge, self._ledger = edge, ledger
        self._random, self._newcomers = random.Random(seed), newcomers()  # noqa: S311 - which user asks
        self._tokens = {number: token_of(f"u{number}") for number in range(USERS)}
        self._key = {"Authorization": basic(edge.key)}

    async def run(self, rate: float, is_over: Callable[[], bool]) -> None:
        """Send `rate` requests a second until it is over."""
        numbers, begun = takewhile(lambda _: not is_over(), count()), time.monotonic()
        newcomer_every = max(int(rate * NEWCOMER_EVERY), 1)

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._edge.port)
            for number in numbers:
                due = begun + number / rate
                await asyncio.sleep(max(due - time.monotonic(), 0))
                request, ids = self._request(number, is_newcomer=number % newcomer_every == 0)
                status, answer = await exchange(reader, writer, request)
                if not ids:
                    self._ledger.seconds.append(time.monotonic() - due)
                if status == b"200":
                    self._ledger.taken.update(ids)
                else:
                    self._ledger.refused.append(f"{status.decode()} {answer.decode()}")
            writer.close()

        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))

    def _request(self, number: int, *, is_newcomer: bool) -> tuple[bytes, list[str]]:
        """Return a request, and the ids of its events: one event in three of four, else a decision."""
        if is_newcomer:
            user = next(self._newcomers)
            self._ledger.newcomers.append(user)
            batch = [{"type": "identify", "traits": {"email": f"{user}@customer.example"}}]
            batch += [{"type": "track", "event": name} for name in POWER_USER]
            named = [
                {**one, "userId": user, "messageId": f"{user}-{nth}", "timestamp": now()}
                for nth, one in enumerate(batch)
            ]
            return post("/v1/b", {"batch": named}, **self._key), [one["messageId"] for one in named]
        if number % 4 == 3:
            user_number = self._random.randrange(USERS)
            return decision(self._edge, user_number, self._tokens[user_number], None), []
        sent = event(number, "soak")
        return post("/v1/t", {**sent, "timestamp": now()}, **self._key), [sent["messageId"]]


def ceiling(edge: Edge, ledger: Ledger, seconds: float) -> float:
    """Return how many events a second the edge takes, beside ticks, from clients that wait for its answers alone."""
    begun = time.monotonic()

    def requests() -> Iterator[bytes]:
        for number in takewhile(lambda _: time.monotonic() < begun + seconds, count()):
            sent = event(number, "ceiling")
            ledger.taken.add(sent["messageId"])
            yield post("/v1/t", sent, Authorization=basic(edge.key))

    asyncio.run(send(edge.port, requests()))
    return len(ledger.taken) / (time.monotonic() - begun)


async def edit(model: Path, every: float) -> None:
    """Change the rule of the segment back and forth, every so many seconds."""
    rules = [text := model.read_text(), text.replace("logins_30d >= 10", "logins_30d >= 9")]
    for nth in count(1):
        await asyncio.sleep(every)
        written = model.with_suffix(".part")
        written.write_text(rules[nth % 2])
        written.rename(model)


def memory_of(pid: int) -> float:
    """Return the megabytes that the processes at and below one have for themselves."""
    total = 0
    for one in children(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return total / 1024


@dataclass
class Gone:
    """How far a soak is: seconds, and rules of the edited segment that were evaluated."""

    seconds: float = 0
    rules: int = 0


async def look(project: Project, programs: dict[str, int], seen: dict[str, list[float]], gone: Gone) -> None:
    """Note how far it is, the connections, and the memory of the programs, again and again."""
    begun = time.monotonic()
    while True:
        gone.seconds = time.monotonic() - begun
        ((gone.rules,),) = rows(project, RULES, segment=SEGMENT)
        seen.setdefault("connections", []).append(rows(project, CONNECTIONS_NOW)[0][0])
        for name, pid in programs.items():
            seen.setdefault(name, []).append(memory_of(pid))
        await asyncio.sleep(LOOK_EVERY)


async def until(is_so: Callable[[], bool]) -> bool:
    """Whether something became so within `LONGEST` seconds."""
    deadline = time.monotonic() + LONGEST
    while not is_so():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def traffic(
    clients: Clients, rate: float, is_over: Callable[[], bool], *, beside: list[asyncio.Task[None]]
) -> None:
    """Run the clients, and end what goes on beside them."""
    try:
        await clients.run(rate, is_over)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


@contextmanager
def at_work(home: Path, smtp: SmtpServer) -> Iterator[tuple[Edge, subprocess.Popen[bytes], Project]]:
    """An edge and the live process on an embedded server of their own."""
    with ExitStack() as ended:
        server = EmbeddedServer(home / "postgres")
        ended.callback(server.stop)
        project = Project(settings_for(home / "home", create_database(make_url(server.start())), smtp.url))
        ended.callback(project.engine.dispose)
        with project.engine.begin() as connection:
            switch(connection, JOURNEY, is_started=True, at=utc_now(), by="the soak")
        variables = {
            **os.environ, "UPNEXT_HOME": str(project.settings.home), "UPNEXT_SMTP_URL": smtp.url,
            "UPNEXT_DATABASE_URL": project.settings.database_url or "", "UPNEXT_MAIL_FROM": "Otto <hello@otto.example>",
        }  # fmt: skip
        edge = ended.enter_context(running(project, UPNEXT_EDGE_TOKEN_KEYS=SECRET))
        log = ended.enter_context((home / "live.log").open("wb"))
        live = subprocess.Popen([UPNEXT, "live"], env=variables, stdout=log, stderr=subprocess.STDOUT)
        ended.callback(live.wait)
        ended.callback(live.terminate)
        yield edge, live, project


def soak(
    home: Path,
    content: Path,
    smtp: SmtpServer,
    *,
    seconds: float,
    edit_every: float = 20,
    rules: int = 3,
    on_seconds: Callable[[float], None] = lambda _: None,
) -> Outcome:
    """Let clients send for so long, and until so many rules were evaluated; compare what they know with what came."""
    ledger, seen, gone = Ledger(), dict[str, list[float]](), Gone()
    model = content / "models" / "segments" / f"{SEGMENT}.sql"
    with at_work(home, smtp) as (edge, live, project):
        rate = ceiling(edge, ledger, seconds=CEILING_SECONDS) * SHARE
        postgres = int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        programs = {"the edge": edge.process.pid, "upnext live": live.pid, "Postgres": postgres}

        def is_over() -> bool:
            on_seconds(gone.seconds)
            return gone.seconds >= seconds and (gone.rules >= rules or gone.seconds >= seconds + LONGEST)

        async def all_of_it() -> bool:
            beside = [
                asyncio.create_task(edit(model, edit_every)),
                asyncio.create_task(look(project, programs, seen, gone)),
            ]
            await traffic(Clients(edge, ledger, seed=1), rate, is_over, beside=beside)
            return await until(lambda: not edge.waiting() and len(smtp.accepted) >= len(ledger.newcomers))

        is_done = asyncio.run(all_of_it())
        live.terminate()
        live.wait()
        stored = [one for (one,) in rows(project, "select message_id from raw.events where source = 'segment'")]
        ((evaluated,),) = rows(project, RULES, segment=SEGMENT)
        ticks = rows(project, "select count(*) from segments.published_ticks")[0][0]
        drift = rebuild(project)
    mails = Counter(message["To"].partition("@")[0] for message in smtp.accepted)
    log = (home / "live.log").read_text()
    kept, taken = Counter(stored), ledger.taken
    faults = {
        "mails or lines still wait": not is_done,
        f"{evaluated} rules of the edited segment were evaluated": evaluated < rules,
        f"{len(ledger.refused)} requests were refused, such as {ledger.refused[:1]}": bool(ledger.refused),
        f"{len(taken - kept.keys())} events that the edge took are not stored": bool(taken - kept.keys()),
        f"{len(kept.keys() - taken)} events are stored that nobody sent": bool(kept.keys() - taken),
        "an event is stored twice": len(stored) != len(kept),
        f"mails: {(mails - Counter(ledger.newcomers)).most_common(3)} too many": bool(
            mails - Counter(ledger.newcomers)
        ),
        f"{len(Counter(ledger.newcomers) - mails)} newcomers got no mail": bool(Counter(ledger.newcomers) - mails),
        f"a full computation differs: {drift}": any(drift.values()),
        f"upnext live: {log[-500:]}": "failed" in log or "upnext:" in log,
    }
    growth = {
        name: statistics.median(_quarter(one, 3)) / statistics.median(_quarter(one, 1)) for name, one in seen.items()
    }
    # What fills up in the first minutes, and the caches of the server, say nothing.
    is_settled = seconds >= SETTLED
    faults |= {
        f"{name}: {growth[name]:.2f} times": growth[name] > FLAT and is_settled
        for name in ("connections", "the edge", "upnext live")
    }
    delays = statistics.quantiles(ledger.seconds, n=100)
    figures = {
        "requests a second": f"{rate:,.0f}, a third of what the edge takes beside all else",
        "events stored": f"{len(stored):,}",
        "mails": f"{len(smtp.accepted):,}",
        "ticks": f"{ticks:,}",
        "rules of the edited segment": f"{evaluated:,}, one after the other",
        "decisions": f"{len(ledger.seconds):,}: median {delays[49] * 1000:.1f} ms, p99 {delays[98] * 1000:.1f} ms",
    }
    for name, sizes in seen.items():
        what, unit = (name, "") if name == "connections" else (f"memory of {name}", " MB")
        last = statistics.median(_quarter(sizes, 3))
        figures[what] = f"{last:,.0f}{unit} at the end, {growth[name]:.2f} times those of the second quarter"
    return Outcome([fault for fault, is_so in faults.items() if is_so], figures)


def _quarter(values: list[float], nth: int) -> list[float]:
    size = max(len(values) // 4, 1)
    return list(islice(values, nth * size, (nth + 1) * size))


def main() -> None:
    """Soak, show the figures, and fail where something is lost, doubled or wrong, or where memory grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--edit-every", type=float, default=20, help="seconds between two edits of the model")
    asked = parser.parse_args()
    console, smtp = Console(), SmtpServer(free_port())
    controller = Controller(smtp, hostname="127.0.0.1", port=smtp.port)
    controller.start()
    with (
        tempfile.TemporaryDirectory(prefix="upnext-soak-", dir=Path.cwd()) as folder,
        pytest.MonkeyPatch.context() as to,
    ):
        to.setenv("UPNEXT_CONTENT", str(CONTENT))
        content = content_copy(Path(folder) / "content")
        to.setenv("UPNEXT_CONTENT", str(content))
        with Progress(console=console) as progress:
            task = progress.add_task("soak", total=asked.minutes * 60)
            outcome = soak(
                Path(folder), content, smtp, seconds=asked.minutes * 60, edit_every=asked.edit_every,
                on_seconds=lambda gone: progress.update(task, completed=gone),
            )  # fmt: skip
    controller.stop()
    table = Table(title=f"A soak of {asked.minutes:g} minutes", title_justify="left", show_header=False)
    for row in outcome.figures.items():
        table.add_row(*row)
    console.print(table)
    for fault in outcome.faults:
        console.print(f"[red]{fault}")
    sys.exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    main()
