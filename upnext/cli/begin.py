"""Commands to begin with: the UI, what is declared, and how all stands."""

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from upnext.cli.content import project_here
from upnext.cli.group import commands
from upnext.cli.output import JSON, PORT, console, show, show_status, tell
from upnext.errors import visible
from upnext.settings import Settings


@commands.command()
@click.option("--port", default=3000, show_default=True, type=PORT, help="Of the UI.")
@click.option("--edge-port", default=8790, show_default=True, type=PORT, help="Of the edge.")
def dev(port: int, edge_port: int) -> None:
    """Run the Dagster UI, its daemon and the edge, with schedules and sensors, on 127.0.0.1."""
    from upnext.dev import serve  # noqa: PLC0415

    sys.exit(serve(Settings.from_environment(), port=port, edge_port=edge_port))


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def doctor(as_json: bool) -> None:
    """Look at the database, settings, disk, clock, mail server and edge, and say what to do; change nothing."""
    from upnext.doctor import examine  # noqa: PLC0415

    findings = list(examine(Settings.from_environment()))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        colours = {"good": "green", "look": "yellow", "wrong": "red"}
        table = Table(box=None, pad_edge=False, show_header=False)
        for place in range(3):
            table.add_column(overflow="fold", no_wrap=place < 2)
        for one in findings:
            told = Text(visible(one.found))
            if one.todo:
                told.append(f"\n{visible(one.todo)}", style="italic")
            table.add_row(Text(one.state, style=colours[one.state]), one.subject, told)
        console().print(table)
    if any(finding.state == "wrong" for finding in findings):
        sys.exit(1)


@commands.command()
@JSON
def check(as_json: bool) -> None:
    """Read all declarations; a mistake names its file, its line and the nearest match."""
    from upnext.operations import checks  # noqa: PLC0415

    show(checks.check(project_here()), as_json, title="No mistakes")


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path))
@JSON
def init(folder: Path, as_json: bool) -> None:
    """Write a new content folder: a segment, a journey, an experience and what they need."""
    from upnext.operations import starter  # noqa: PLC0415

    starter.new_content(folder)
    home = folder.resolve().parent / f".upnext-{folder.resolve().name}"
    tell(
        {"content": f"{folder.resolve()}", "home": f"{home}"},
        as_json,
        f"written: {folder}\nIt needs a home of its own, so that it is not taken for a change of other content:\n\n"
        f"    export UPNEXT_CONTENT={shlex.quote(f'{folder.resolve()}')} UPNEXT_HOME={shlex.quote(f'{home}')}\n"
        "    upnext check",
    )


@commands.command()
@JSON
def status(as_json: bool) -> None:
    """Show watermarks, members by segment, messages by status, the last run and drift."""
    show_status(as_json)
