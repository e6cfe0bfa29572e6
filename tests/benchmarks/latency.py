"""From a file in the landing folder to the mail at the server, through the real daemon and its sensors."""

import argparse
import queue
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy.engine import make_url

from tests.conftest import free_port, settings_for
from tests.integration.test_daemon import dev, graphql, write_power_user
from tests.integration.test_journeys import users
from upnext.operations.controls import start_all
from upnext.project import Project
from upnext.warehouse.embedded import EmbeddedServer

RUNS = "{ runsOrError(limit: 40) { ... on Runs { results { jobName creationTime startTime endTime } } } }"

PARTS = ("sensor", "start of the tick", "tick and sensor", "start of the dispatch", "dispatch")


class Sink:
    """Tells when a mail was accepted."""

    def __init__(self) -> None:
        self.accepted: queue.Queue[float] = queue.Queue()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.accepted.put(time.time())
        return "250 OK"


def parts(runs: list[dict[str, Any]], landed_at: float, mailed_at: float) -> list[float]:
    """Return the seconds until the tick is asked for, until it works, of the tick, until the dispatch works, of it."""
    tick = next(run for run in runs if run["jobName"] == "tick" and run["creationTime"] > landed_at)
    dispatch = min(
        (run for run in runs if run["jobName"] == "dispatch" and run["creationTime"] > tick["creationTime"]),
        key=lambda run: run["creationTime"],
    )
    marks = [landed_at, tick["creationTime"], tick["startTime"], dispatch["creationTime"], dispatch["startTime"]]
    return [later - earlier for earlier, later in zip(marks, [*marks[1:], mailed_at], strict=True)]


def main() -> None:
    """Let files land, one after the other, and print how long each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=10)
    tries = parser.parse_args().tries
    table = Table(title="From a file in landing to the mail, seconds", title_justify="left")
    for column in (
        "try",
        "in all",
        "sensor",
        "start of the tick",
        "tick and sensor",
        "start of the dispatch",
        "dispatch",
    ):
        table.add_column(column, justify="right")
    sink, port, ui_port = Sink(), free_port(), free_port()
    controller = Controller(sink, hostname="127.0.0.1", port=port)
    controller.start()
    totals = []
    with tempfile.TemporaryDirectory(prefix="upnext-bench-", dir=".") as folder:
        home = Path(folder).resolve()
        server = EmbeddedServer(home / "postgres")
        landing = home / "landing" / "segment"
        landing.mkdir(parents=True)
        url = make_url(server.start())
        start_all(Project(settings_for(home, url)), by="the benchmark")
        with dev(home, url, f"smtp://127.0.0.1:{port}", ui_port):
            people = list(users(held_out=False, count=tries + 1))
            for number, user in enumerate(track(people, "files", console=Console(stderr=True))):
                write_power_user(landing / f"{user}.jsonl", user, datetime.now(UTC) - timedelta(hours=1))
                landed_at = time.time()
                mailed_at = sink.accepted.get(timeout=300)
                time.sleep(15)
                if number == 0:
                    continue
                runs: Any = graphql(ui_port, RUNS)["runsOrError"]
                totals.append(mailed_at - landed_at)
                row = [totals[-1], *parts(runs["results"], landed_at, mailed_at)]
                table.add_row(str(number), *(f"{seconds:.1f}" for seconds in row))
        server.stop()
    controller.stop()
    table.caption = (
        f"the middle: {statistics.median(totals):.1f} s; the first file, which waits for the daemon, is left out"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
