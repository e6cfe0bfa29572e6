"""The Dagster instance: its home, its storage in the warehouse, and how the UI and the daemon are started."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from sqlalchemy.engine import URL

from upnext import dbt
from upnext.edge.config import REPORT_PASSWORD, report_passwords
from upnext.edge.report_page import USER
from upnext.edge.server import check_port
from upnext.errors import UpnextError
from upnext.settings import IS_CHECKOUT, PROJECT, Settings
from upnext.warehouse.engine import connect, database_url


def storage_url(url: URL) -> str:
    """Return Dagster's own URL. It names psycopg2: with psycopg 3 no run launches (NOTIFY takes no parameter)."""
    scoped = url.set(drivername="postgresql+psycopg2").update_query_dict({"options": "-csearch_path=dagster"})
    return scoped.render_as_string(hide_password=False)


def prepare(settings: Settings) -> dict[str, str]:
    """Make the home, migrate the warehouse, parse dbt, and return the variables that Dagster's processes need."""
    connect(settings).dispose()
    dbt.manifest_path(settings)
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    (settings.landing / "segment").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT / "dagster.yaml", settings.dagster_home / "dagster.yaml")
    url = database_url(settings)
    return {
        "UPNEXT_HOME": str(settings.home),
        "DAGSTER_HOME": str(settings.dagster_home),
        # Dagster's processes import `orchestration`, which is part of the checkout and not of the package.
        "PYTHONPATH": str(PROJECT),
        "UPNEXT_DAGSTER_URL": storage_url(url),
        **dbt.environment(settings, url),
    }


def serve(settings: Settings, *, port: int, edge_port: int) -> int:
    """Run the UI on loopback, and the daemon and the edge with it, until they end; return the status of the UI.

    Raises `UpnextError` where they run in this home already, or a port is taken.
    """
    if not IS_CHECKOUT:
        raise UpnextError("the UI needs a checkout of Upnext: what Dagster sees is no part of the package")
    with _only_one(settings, port):
        check_port("127.0.0.1", edge_port, option="--edge-port")
        environment = {**os.environ, **prepare(settings), "PYTHONWARNINGS": "ignore"}
        environment["UPNEXT_EDGE_URL"] = f"http://127.0.0.1:{edge_port}"
        print(f"Upnext comes up on http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
        report_passwords(settings)
        print(
            f"The report: http://127.0.0.1:{edge_port}/report (user {USER}, password in"
            f" {settings.home / REPORT_PASSWORD})",
            flush=True,
        )
        print(f"Drop files into {settings.landing / 'segment'}", flush=True)
        edge = subprocess.Popen(
            [str(Path(sys.executable).parent / "upnext"), "edge", "--port", f"{edge_port}"],
            env={**os.environ, "UPNEXT_HOME": str(settings.home)},
        )  # fmt: skip
        dagster = str(Path(sys.executable).parent / "dagster")
        # A process that a script starts in the background ignores Ctrl-C, and Dagster would then ignore SIGTERM too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            [dagster, "dev", "-w", str(PROJECT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port),
             "--log-level", "warning"],
            env=environment, cwd=settings.dagster_home,
        )  # fmt: skip
        # Ctrl-C reaches both processes; wait until Dagster has shut down.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        finally:
            edge.terminate()
            edge.wait()


def running_on(settings: Settings) -> int | None:
    """Return the port of the UI that runs in this home; None where none does."""
    try:
        with (settings.home / "dev").open() as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int((settings.home / "dev").read_text() or 0)
    return None


def reload(port: int) -> bool:
    """Let the UI read again what is declared; False where it does not answer."""
    query = 'mutation { reloadRepositoryLocation(repositoryLocationName: "upnext") { __typename } }'
    request = Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server on loopback
            return b"WorkspaceLocationEntry" in answer.read()
    except OSError:
        return False


@contextmanager
def _only_one(settings: Settings, port: int) -> Iterator[None]:
    running = running_on(settings)
    if running is not None:
        raise UpnextError(f"Upnext runs in this home already, on http://127.0.0.1:{running}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise UpnextError(f"port {port} is taken; choose another: upnext dev --port {port + 1}") from None
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "dev").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.truncate(0)
        held.write(f"{port}")
        held.flush()
        yield
