"""The Dagster instance: its home, its storage in the warehouse, and how the UI and the daemon are started."""

import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import grpc  # type: ignore[import-untyped]
from sqlalchemy.engine import URL

from upnext import dbt
from upnext.edge.config import report_passwords
from upnext.edge.report_page import where_the_report_is
from upnext.edge.server import check_port
from upnext.errors import UpnextError
from upnext.settings import IS_CHECKOUT, PROJECT, Settings
from upnext.supervise import Program, keep
from upnext.warehouse.engine import connect, database_url

LOCATION = "upnext"


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
    """Run the UI on loopback, and the daemon and the edge with it, until told to end; return the status.

    One that ends by itself is started again, and so is the embedded server.

    Raises `UpnextError` where they run in this home already, or a port is taken.
    """
    if not IS_CHECKOUT:
        raise UpnextError("the UI needs a checkout of Upnext: what Dagster sees is no part of the package")
    with _only_one(settings, port):
        check_port("127.0.0.1", edge_port, option="--edge-port")
        environment = {**os.environ, **prepare(settings), "PYTHONWARNINGS": "ignore"}
        edge_url = f"http://127.0.0.1:{edge_port}{settings.edge_prefix}"
        environment["UPNEXT_EDGE_URL"] = edge_url
        print(f"Upnext comes up on http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
        report_passwords(settings)
        print(where_the_report_is(settings, f"http://127.0.0.1:{edge_port}"), flush=True)
        print(f"Drop files into {settings.landing / 'segment'}", flush=True)
        programs = Path(sys.executable).parent
        code_port = _free_port()
        workspace: list[str | Path] = ["-w", _written_workspace(settings, code_port)]
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        return keep(
            [
                Program(
                    "the edge", [programs / "upnext", "edge", "--port", f"{edge_port}"],
                    {**os.environ, "UPNEXT_HOME": str(settings.home)},
                ),
                Program(
                    "the code server",
                    [programs / "dagster", "code-server", "start", "-m", "orchestration.definitions",
                     "-h", "127.0.0.1", "-p", f"{code_port}", "--location-name", LOCATION, "--log-level", "warning"],
                    environment, settings.dagster_home, is_well=lambda: _answers(f"127.0.0.1:{code_port}"),
                ),
                Program(
                    "the daemon", [programs / "dagster-daemon", "run", *workspace, "--log-level", "warning"],
                    environment, settings.dagster_home,
                ),
                Program(
                    "the webserver",
                    [sys.executable, "-m", "orchestration.webserver", *workspace, "-h", "127.0.0.1", "-p", f"{port}",
                     "--dagster-log-level", "warning", "--live-data-poll-rate", "2000"],
                    environment, settings.dagster_home,
                ),
            ],
            stop=stop, look=lambda: _wake(settings), tell=_tell,
        )  # fmt: skip


def _written_workspace(settings: Settings, code_port: int) -> Path:
    """Return a workspace that names the code server."""
    path = settings.dagster_home / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": code_port, "location_name": LOCATION}
    path.write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
    return path


def _answers(address: str) -> bool:
    """Whether the code server answers, and not only the proxy before it."""
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary("/api.DagsterApi/Ping")(b"", timeout=10)
        except grpc.RpcError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wake(settings: Settings) -> None:
    """Start the embedded server where it was killed."""
    try:
        database_url(settings)
    except UpnextError as error:
        _tell(f"{error}")


def _tell(line: str) -> None:
    print(f"upnext: {line}", file=sys.stderr, flush=True)


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
    """Let the UI read again what is declared; False where it does not answer, or cannot read it."""
    read = "... on WorkspaceLocationEntry { locationOrLoadError { __typename } }"
    query = f'mutation {{ reloadRepositoryLocation(repositoryLocationName: "{LOCATION}") {{ {read} }} }}'
    request = Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=60) as answer:  # noqa: S310 - our own server on loopback
            return b'"RepositoryLocation"' in answer.read()
    except OSError:
        return False


@contextmanager
def _only_one(settings: Settings, port: int) -> Iterator[None]:
    running = running_on(settings)
    if running is not None:
        raise UpnextError(f"Upnext runs in this home already, on http://127.0.0.1:{running}")
    check_port("127.0.0.1", port)
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "dev").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.truncate(0)
        held.write(f"{port}")
        held.flush()
        yield
