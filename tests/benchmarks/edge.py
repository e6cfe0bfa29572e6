"""What the edge costs, as ratios to simpler servers in the same run.

    make bench-edge                 3,000 requests a round, 5 rounds that take turns

CPU is user and system time of the processes that serve, and of Postgres where the table says so, from /proc. Times on a
shared machine are noisy, so CPU for a request is the figure to trust. The drain is compared with `upnext ingest` of the
same lines in a file.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import sqlalchemy as sa
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy.engine import make_url

from tests.conftest import PROJECT, create_database, free_port, settings_for, wait_for
from tests.integration.test_edge import Edge, basic, running
from upnext.clock import utc_now
from upnext.loop import ingest_landing
from upnext.project import Project
from upnext.warehouse.embedded import EmbeddedServer

CONNECTIONS = 64
SECRET = "a-secret-of-more-than-forty-bytes-for-benchmarks"
TICKS = os.sysconf("SC_CLK_TCK")
AGENT = "Mozilla/5.0"


@dataclass
class Round:
    """Some requests of one kind: seconds of CPU for each, of the server and of Postgres, and how fast they were."""

    app: float
    postgres: float
    median: float
    per_second: float


def children(pid: int) -> list[int]:
    """Return a process and all below it."""
    try:
        found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [pid, *(one for child in found for one in children(child))]


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU of a process and all below it, and of those of them that have ended."""
    total = 0
    for one in children(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def resident(pid: int) -> float:
    """Return the megabytes of memory of the largest process below one."""
    sizes = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in children(pid)[1:]]
    return max(sizes) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[bytes, bytes]:
    """Send a request, and return the status and the body of its answer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head.split()[1], await reader.readexactly(length)


async def send(port: int, requests: Iterator[bytes], status: bytes = b"200") -> list[float]:
    """Send requests over connections that stay open, and return the seconds of each."""
    times: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in requests:
            begun = time.perf_counter()
            answered, body = await exchange(reader, writer, request)
            times.append(time.perf_counter() - begun)
            if answered != status:
                raise SystemExit(f"answered {answered!r} {body!r}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return times


def post(path: str, body: Any, **headers: str) -> bytes:
    content = json.dumps(body).encode()
    stated = {"Host": "127.0.0.1", "User-Agent": AGENT, "Content-Length": f"{len(content)}", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in stated.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + content


def event(number: int, run: str) -> dict[str, Any]:
    """Return an event as a browser's client sends it, about 1 KB."""
    page = {"path": "/pricing", "url": "https://otto.example/pricing", "title": "Pricing", "referrer": ""}
    return {
        "type": "track", "event": "product viewed", "messageId": f"ajs-{run}-{number}", "userId": f"u{number % 999}",
        "anonymousId": "5f8a6c1e-0c55-4a8e-9a7b-1d2f3a4b5c6d", "timestamp": "2026-03-31T12:00:00.000Z",
        "properties": {"plan": "basic", "amount": 12.5, "note": "x" * 300},
        "context": {"page": page, "userAgent": AGENT * 8, "locale": "en-GB", "library": {"name": "analytics.js"}},
    }  # fmt: skip


def measure(port: int, pid: int, postgres: int, requests: list[bytes], status: bytes = b"200") -> Round:
    before, begun = (cpu_of(pid), cpu_of(postgres)), time.perf_counter()
    times = asyncio.run(send(port, iter(requests), status))
    seconds = time.perf_counter() - begun
    after = (cpu_of(pid), cpu_of(postgres))
    count = len(requests)
    return Round(
        (after[0] - before[0]) / count, (after[1] - before[1]) / count, statistics.median(times), count / seconds
    )  # fmt: skip


@contextmanager
def reference(name: str, database: str = "") -> Iterator[tuple[int, int]]:
    """Serve one of the simpler servers; yield its port and its process."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.edge_apps", name, f"{port}", *([database] if database else [])]
    with subprocess.Popen(command, cwd=PROJECT) as process:
        try:
            wait_for(lambda: is_answering(port), name)
            yield port, process.pid
        finally:
            process.terminate()


def is_answering(port: int) -> bool:
    try:
        asyncio.run(send(port, iter([post("/", {})])))
    except OSError:
        return False
    return True


def fill(project: Project, users: int) -> None:
    """Let users see something, so that a decision has something to find."""
    with project.engine.begin() as connection:
        connection.execute(sa.text("insert into experiences.definitions values ('spring', '{}')"))
        connection.execute(
            sa.text(
                "insert into experiences.live_ctas (user_id, surface, slot, source, source_kind, variant, copy, url,"
                " starts_at) select 'u' || number, 'web', slot, 'spring', 'experience', 'a', 'Upgrade', '/up', :at"
                " from generate_series(0, :users) as number,"
                " unnest(array['homepage_banner', 'nav_bar_button']) as slot"
            ),
            {"users": users, "at": utc_now() - timedelta(hours=1)},
        )


def drains(server: EmbeddedServer, root: Path, lines: int) -> float:
    """Return how fast the drain is against `upnext ingest`, both in this process and into a warehouse of their own."""
    texts = [json.dumps(event(number, "drain")).encode() for number in range(lines)]
    seconds = []
    for name in ("by_file", "by_inbox"):
        project = Project(settings_for(root / name, create_database(make_url(server.start()), f"upnext_{name}")))
        _ = project.engine
        if name == "by_file":
            path = project.settings.landing / "segment" / "events.jsonl"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"\n".join(texts) + b"\n")
        else:
            copy = "copy edge.inbox (source, received_at, line) from stdin"
            with project.engine.begin() as connection:
                cursor: Any = connection.connection.cursor()
                with cursor.copy(copy) as target:
                    for text in texts:
                        target.write_row(("segment", utc_now(), text))
        begun = time.perf_counter()
        done = ingest_landing(project)
        seconds.append(time.perf_counter() - begun)
        if done.stored != lines:
            raise SystemExit(f"{name} stored {done.stored} of {lines}")
        project.engine.dispose()
    return seconds[0] / seconds[1]


def decision(edge: Edge, number: int, token: str, tag: str | None) -> bytes:
    context = {"context": {"targetingKey": f"u{number}", "upnextToken": token}}
    stated = {"X-Write-Key": edge.key, **({"If-None-Match": tag} if tag is not None else {})}
    return post("/ofrep/v1/evaluate/flags", context, **stated)


def token_of(user: str) -> str:
    claims = {"sub": user, "aud": "upnext", "exp": datetime.now(UTC) + timedelta(hours=12)}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def main() -> None:
    """Run all rounds and print a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=100_000)
    asked = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="upnext-bench-", dir=Path.cwd()) as folder:
        root = Path(folder)
        server = EmbeddedServer(root / "postgres")
        url = make_url(server.start())
        postgres = int((root / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        project = Project(settings_for(root / "home", create_database(url, "upnext_edge")))
        fill(project, 999)
        database = project.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        begun = time.perf_counter()
        with (
            running(project, UPNEXT_EDGE_TOKEN_KEYS=SECRET) as edge,
            reference("constant") as constant,
            reference("insert", database) as insert,
        ):
            up = time.perf_counter() - begun
            rounds: dict[str, list[Round]] = {}
            fresh = resident(edge.process.pid)
            tags = tags_of(edge)
            for nth in track(range(asked.rounds), console=console):
                singles = [post("/v1/t", event(number, f"{nth}")) for number in range(asked.requests)]
                with_key = [request_with_key(edge, number, nth) for number in range(asked.requests)]
                batches = [
                    post("/v1/b", {"batch": [event(one, f"b{nth}-{number}") for one in range(100)]},
                         Authorization=basic(edge.key))
                    for number in range(asked.requests // 10)
                ]  # fmt: skip
                decisions = [decision(edge, number % 999, *tags[number % 999]) for number in range(asked.requests)]
                for name, (port, pid), requests, status in (
                    ("constant", constant, singles, b"200"), ("insert", insert, singles, b"200"),
                    ("durable", (edge.port, edge.process.pid), with_key, b"200"),
                    ("batch", (edge.port, edge.process.pid), batches, b"200"),
                    ("decision", (edge.port, edge.process.pid), decisions, b"304"),
                ):  # fmt: skip
                    rounds.setdefault(name, []).append(measure(port, pid, postgres, requests, status))
            memory = resident(edge.process.pid)
        drained = [drains(server, root / f"drain{nth}", asked.lines) for nth in range(3)]
        project.engine.dispose()
        server.stop()
    console.print(table_of(rounds, drained))
    for name in ("durable", "batch", "decision"):
        app, inside = (statistics.median(getattr(one, of) for one in rounds[name]) for of in ("app", "postgres"))
        console.print(f"CPU of a request, {name}: {app * 1000:.2f} ms of the edge, {inside * 1000:.2f} ms of Postgres")
    console.print(
        f"up after {up:.1f} s, migration and two other servers included; memory {fresh:.0f} MB fresh,"
        f" {memory:.0f} MB after {asked.rounds * asked.requests * 11:,} events"
    )


def request_with_key(edge: Edge, number: int, nth: int) -> bytes:
    return post("/v1/t", event(number, f"d{nth}"), Authorization=basic(edge.key))


def tags_of(edge: Edge) -> list[tuple[str, str]]:
    """Return the token and the ETag of each user's answer."""
    tokens = [token_of(f"u{number}") for number in range(999)]
    tags = []
    for number, token in enumerate(tokens):
        context = {"context": {"targetingKey": f"u{number}", "upnextToken": token}}
        found = edge.ask("POST", "/ofrep/v1/evaluate/flags", context, X_Write_Key=edge.key, User_Agent=AGENT)
        tags.append((token, found.headers["etag"]))
    return tags


def table_of(rounds: dict[str, list[Round]], drained: list[float]) -> Table:
    def ratios(of: str, to: str, figure: Any) -> list[float]:
        return [figure(one) / figure(other) for one, other in zip(rounds[of], rounds[to], strict=True)]

    figures = [
        ("app CPU, durable event / constant answer", "<= 2.5", ratios("durable", "constant", lambda r: r.app)),
        ("app + Postgres CPU, durable event / INSERT per request", "<= 0.45",
         ratios("durable", "insert", lambda r: r.app + r.postgres)),
        ("p50 of 64 connections, durable event / INSERT per request", "<= 0.6",
         ratios("durable", "insert", lambda r: r.median)),
        ("events/s, batches of 100 / single", ">= 8",
         [100 * ratio for ratio in ratios("batch", "durable", lambda r: r.per_second)]),
        ("app CPU, decision with token and ETag / constant answer", "<= 2.0",
         ratios("decision", "constant", lambda r: r.app)),
        ("events/s, drain / ingest of the same lines", ">= 0.7", drained),
    ]  # fmt: skip
    table = Table(title="The edge, as ratios", title_justify="left")
    for column in ("figure", "asked", "median", "all"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name, wanted, all_of_it in figures:
        shown = ", ".join(f"{ratio:.2f}" for ratio in all_of_it)
        table.add_row(name, wanted, f"{statistics.median(all_of_it):.2f}", shown)
    return table


if __name__ == "__main__":
    main()
