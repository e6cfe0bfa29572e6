"""`upnext edge`: processes that share a port, with limits on what strangers can hold open."""

import os
import socket

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from upnext.edge.config import DATABASE, PROCESSES, Config
from upnext.errors import UpnextError

HEADERS_WITHIN = 5_000
"""Milliseconds for the headers of a request to arrive."""
MAX_HEADERS = 32 * 1024
STOPS_WITHIN = 20
"""Seconds for open requests to be answered when the edge is told to stop."""


def serve(database: str, *, host: str, port: int, processes: int) -> None:
    """Serve until told to stop. Raises `UpnextError` for a wrong setting, or a port that is taken."""
    os.environ |= {DATABASE: database, PROCESSES: f"{processes}"}
    Config.from_environment()
    check_port(host, port)
    print(f"The edge comes up on http://{host}:{port} (Ctrl-C ends it)", flush=True)
    Server(
        "upnext.edge.app:create",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=HEADERS_WITHIN, max_buffer_size=MAX_HEADERS),
        websockets=False,
        workers=processes,
        workers_kill_timeout=STOPS_WITHIN,
        respawn_failed_workers=True,
        log_level=LogLevels.warning,
        log_access=False,
    ).serve()


def check_port(host: str, port: int, *, option: str = "--port") -> None:
    """Raise `UpnextError` where a port cannot be listened on; `option` chooses another."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            raise UpnextError(f"cannot listen on {host}:{port}; choose another: {option} {port + 1}") from None
