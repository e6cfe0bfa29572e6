"""Commands for pages and apps: the edge and its keys."""

import json

import click
from rich.table import Table

from upnext.cli.content import sources_here
from upnext.cli.group import commands
from upnext.cli.help import Group
from upnext.cli.output import JSON, PORT, console, tell
from upnext.errors import UpnextError, visible
from upnext.settings import Settings


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8790, show_default=True, type=PORT, help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes.")
def edge(host: str, port: int, workers: int) -> None:
    """Serve HTTP: take events from Segment's clients, in the browser and on servers."""
    from upnext.edge.report_page import where_the_report_is  # noqa: PLC0415
    from upnext.edge.server import serve  # noqa: PLC0415
    from upnext.warehouse.engine import connect, database_url  # noqa: PLC0415

    settings = Settings.from_environment()
    connect(settings).dispose()
    database = database_url(settings).render_as_string(hide_password=False)
    print(where_the_report_is(settings, f"http://{host}:{port}"), flush=True)
    serve(database, host=host, port=port, processes=workers)


@commands.group(cls=Group)
def keys() -> None:
    """Add, list and disable the keys of the edge."""


@keys.command("add")
@click.option("--source", default="segment", show_default=True, help="Whose events these are: a file of sources/.")
@click.option(
    "--kind", type=click.Choice(["write", "server"]), default="write", show_default=True, help="Who holds the key."
)
@click.option("--origin", "origins", multiple=True, help="Pages that may use the key, such as https://otto.example.")
@click.option(
    "--identity",
    type=click.Choice(["required", "optional"]),
    default="required",
    show_default=True,
    help="Of the page's user.",
)
@click.option(
    "--events-per-second",
    type=click.IntRange(1),
    default=500,
    show_default=True,
    help="The most that the key may send.",
)
@JSON
def add_key(
    source: str, kind: str, origins: tuple[str, ...], identity: str, events_per_second: int, as_json: bool
) -> None:
    """Make a key and print it, this once: a write key for pages and apps, or a server key."""
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.edge import manage  # noqa: PLC0415
    from upnext.events.declared import known_source  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    if known_source(sources_here(), source).format != "segment":
        raise UpnextError(f"source '{source}' is not of the format segment, which clients of the edge send")
    key_id, key = manage.add_key(
        connect(Settings.from_environment()),
        kind="server" if kind == "server" else "write",
        source=source,
        origins=origins,
        identity=identity,
        events_per_second=events_per_second,
        now=utc_now(),
    )
    print(json.dumps({"key_id": key_id, "key": key}) if as_json else f"key {key_id}: {key}")


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def list_keys(as_json: bool) -> None:
    """List all keys, without the keys themselves."""
    from upnext.edge import manage  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    found = manage.list_keys(connect(Settings.from_environment()))
    if as_json:
        print(json.dumps(found, default=str))
        return
    if not found:
        print("No keys yet; `upnext keys add` makes one.")
        return
    table = Table(title="Keys", title_justify="left")
    for column in ("key", "kind", "source", "origins", "identity", "events/s", "state"):
        table.add_column(column, justify="right" if column in ("key", "events/s") else "left", overflow="fold")
    for key in found:
        table.add_row(
            f"{key['key_id']}", key["kind"], key["source"], visible("\n".join(key["origins"])), key["identity"],
            f"{key['events_per_second']}", "in use" if key["disabled_at"] is None else "disabled",
        )  # fmt: skip
    console().print(table)


@keys.command("disable")
@click.argument("key_id", type=int)
@JSON
def disable_key(key_id: int, as_json: bool) -> None:
    """Disable a key; the edge refuses it within 10 seconds."""
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.edge import manage  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    manage.disable_key(connect(Settings.from_environment()), key_id, now=utc_now())
    tell({"disabled": key_id}, as_json, f"key {key_id} is disabled")
