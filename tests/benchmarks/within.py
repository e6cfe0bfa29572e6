"""From events that a client sends to what follows: another call to action, and a mail at a real SMTP server.

    make bench-within                1,000,000 events stored, 20 tries of each

`upnext edge` and `upnext live` run as they do for everybody, with Otto's content.
"""

import argparse
import os
import queue
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.benchmarks.latency import Sink
from tests.benchmarks.tick import Warehouse
from tests.conftest import UPNEXT, free_port
from tests.integration.test_edge import Edge, running
from upnext.clock import utc_now

FLAG = "/ofrep/v1/evaluate/flags/in_app.feature_gated_modal"
CURIOUS = ("subscribed newsletter", "viewed upgrade plan")
POWER_USER = ("subscribed to basic plan", "product viewed", *["login"] * 10, *["created ml task"] * 5)
LONGEST = 300.0


class Client:
    """A server of the product: it sends events, and asks what users see."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._key = {"Authorization": f"Bearer {edge.add_key('server')}"}

    def send(self, user: str, *events: str) -> None:
        """Tell who a user is, and what the user did."""
        # The log of ticks orders by time, and what is as new as the tick waits for the next one.
        at = (utc_now() - timedelta(seconds=1)).isoformat()
        named = {"userId": user, "timestamp": at}
        batch: list[dict[str, Any]] = [
            {"type": "identify", "traits": {"email": f"{user}@customer.example", "name": user}, **named},
            *({"type": "track", "event": event, **named} for event in events),
        ]
        for nth, line in enumerate(batch):
            line["messageId"] = f"{user}-{nth}"
        answer = self._edge.ask("POST", "/v1/batch", {"batch": batch}, **self._key)
        if answer.status != 200:
            raise SystemExit(f"the edge answered {answer}")

    def sees(self, user: str) -> bool:
        """Whether a user has a call to action in the dialog, or is in its control group."""
        found = self._edge.ask("POST", FLAG, {"context": {"targetingKey": user}}, **self._key)
        return bool(found.body["variant"] != "none")


def until(is_so: Callable[[], bool]) -> float:
    """Return the seconds until something is so."""
    begun = time.perf_counter()
    while not is_so():
        if time.perf_counter() - begun > LONGEST:
            raise SystemExit("waited in vain")
        time.sleep(0.01)
    return time.perf_counter() - begun


def main() -> None:
    """Print the seconds of each try, and their middle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=1_000_000)
    parser.add_argument("--tries", type=int, default=20)
    asked = parser.parse_args()
    console, sink, port = Console(), Sink(), free_port()
    controller = Controller(sink, hostname="127.0.0.1", port=port)
    controller.start()
    with tempfile.TemporaryDirectory(prefix="upnext-bench-", dir=Path.cwd()) as folder:
        warehouse = Warehouse(Path(folder))
        if asked.stored:
            warehouse.fill(asked.stored)
        variables = {
            **os.environ, "UPNEXT_HOME": folder, "UPNEXT_SMTP_URL": f"smtp://127.0.0.1:{port}",
            "UPNEXT_MAIL_FROM": "Otto <hello@otto.example>",
        }  # fmt: skip
        with running(warehouse.project) as edge, subprocess.Popen([UPNEXT, "live"], env=variables) as live:
            client = Client(edge)
            until(lambda: client.sees("nobody") is False)
            client.send("first", *CURIOUS)
            warm = until(lambda: client.sees("first"))
            seen, mailed = [], []
            for nth in track(range(asked.tries), console=console):
                client.send(f"curious{nth}", *CURIOUS)
                seen.append(until(lambda nth=nth: client.sees(f"curious{nth}")))  # type: ignore[misc]
                while not sink.accepted.empty():
                    sink.accepted.get()
                begun = time.time()
                client.send(f"power{nth}", *POWER_USER)
                try:
                    mailed.append(sink.accepted.get(timeout=30) - begun)
                except queue.Empty:
                    # The journey holds one in ten out.
                    console.print(f"power{nth} gets no mail: held out")
            live.terminate()
        warehouse.close()
    controller.stop()
    table = Table(title=f"Seconds, {asked.stored:,} events stored", title_justify="left")
    for column in ("from the event to", "asked", "median", "least", "most", "tries"):
        table.add_column(column, justify="left" if column.startswith("from") else "right")
    for name, wanted, times in (("another call to action", "< 5", seen), ("the mail", "< 6", mailed)):
        shown = [f"{figure:.2f}" for figure in (statistics.median(times), min(times), max(times))]
        table.add_row(name, wanted, *shown, f"{len(times)}")
    console.print(table)
    console.print(f"the first tick, which computes all of the history, and the second: {warm:.1f} s")


if __name__ == "__main__":
    main()
