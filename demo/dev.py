"""`make dev`: Dagster's UI, the edge, the warm process, and Otto's website, until Ctrl-C."""

import os
import sys
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import click

from demo.site.app import Site, create
from sensors.warm_process import IS_ON
from upnext.clock import utc_now
from upnext.dev import serve
from upnext.edge.manage import add_key
from upnext.edge.server import check_port
from upnext.errors import UpnextError
from upnext.kept import keep_private, kept
from upnext.project import Project
from upnext.settings import Settings


@click.command()
@click.option("--port", default=3000, show_default=True, help="Of Dagster's UI.")
@click.option("--edge-port", default=8790, show_default=True)
@click.option("--site-port", default=8791, show_default=True)
def main(port: int, edge_port: int, site_port: int) -> None:
    """Run all that Upnext runs on 127.0.0.1, and Otto's website with it unless you have a content of your own."""
    keep_private()
    settings = Settings.from_environment()
    try:
        if settings.content is None:
            serve_site(settings, port=site_port, edge_port=edge_port)
        # The warm process is a run of Dagster, so that the graph shows what it does.
        os.environ[IS_ON] = "on"
        sys.exit(serve(settings, port=port, edge_port=edge_port))
    except UpnextError as error:
        sys.exit(f"upnext: {error}")


def serve_site(settings: Settings, *, port: int, edge_port: int) -> None:
    """Serve Otto's website in a thread, and let the edge know the secret that it signs with."""
    check_port("127.0.0.1", port, option="--site-port")
    project = Project(settings)
    key = key_of_site(project, f"http://127.0.0.1:{port}")
    (secret,) = kept(settings.home, "otto_token_secret")
    os.environ["UPNEXT_EDGE_TOKEN_KEYS"] = secret
    site = Site(project.engine, f"http://127.0.0.1:{edge_port}", key, secret)
    server = make_server("127.0.0.1", port, create(site), handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"Otto is on http://127.0.0.1:{port}", flush=True)


def key_of_site(project: Project, origin: str) -> str:
    """Return the write key of Otto's pages, made at the first start on this port."""

    def new() -> str:
        _, key = add_key(
            project.engine, kind="write", source="segment", origins=[origin], identity="optional",
            events_per_second=500, now=utc_now(),
        )  # fmt: skip
        return key

    (key,) = kept(project.settings.home, f"otto_write_key_{origin.rpartition(':')[2]}", new=new)
    return key


class Quiet(WSGIRequestHandler):
    """A handler that writes no log."""

    def log_message(self, *_: object) -> None:
        """Write nothing."""


if __name__ == "__main__":
    main()
