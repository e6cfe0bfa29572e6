"""How commands print: tables on a terminal, plain text in a pipe, or JSON; warnings on standard error."""

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from upnext.cli.content import project_here
from upnext.errors import visible

PORT = click.IntRange(1, 65535)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def show(values: Mapping[str, Any], as_json: bool, *, title: str) -> None:
    """Print values by name, as a table, or as one JSON object.

    In the table, a mapping is a section of its own. What is in a list follows, a line each.
    """
    if as_json:
        print(json.dumps(values, default=as_text))
        return
    is_terminal = Console().is_terminal
    console().print(title, style="italic")
    table = Table(show_header=False, box=box.HEAVY_HEAD if is_terminal else None)
    table.add_column(style="bold")
    table.add_column(justify="right")
    listed = {name: value for name, value in values.items() if isinstance(value, list | tuple)}
    for name, value in values.items():
        if name in listed:
            continue
        if isinstance(value, Mapping):
            table.add_section()
            for inner, number in value.items():
                table.add_row(f"{name}: {inner}", as_text(number))
            if not value:
                table.add_row(name, "none")
        else:
            table.add_row(name, as_text(value))
    console().print(table)
    for name, value in listed.items():
        print(f"{name}:" if value else f"{name}: none", *(f"  {as_text(one)}" for one in value), sep="\n")


def show_status(as_json: bool = False) -> None:
    """Print how all stands."""
    from upnext.operations import previews  # noqa: PLC0415

    found = previews.status(project_here())
    show(found, as_json, title="Status")
    if not as_json and found["watermarks"]["as_of"] is None:
        print(
            "Nothing has been computed yet: load events (`upnext ingest FILE`, or drop files into landing), then tick."
        )


def tell(values: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print what a command did: a sentence, or one JSON object."""
    print(json.dumps(values, default=as_text) if as_json else text)


def warn(text: str) -> None:
    """Print one line on standard error."""
    print("upnext: warning: " + visible(" ".join(text.split())), file=sys.stderr)


def as_text(value: Any) -> str:
    """Return a value as one cell of a table shows it; control characters of others are made visible."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "none"
    return "none" if value is None else visible(f"{value}")


def console(*, at_least: int = 0) -> Console:
    """Return what prints tables: as wide as the terminal, or as a word needs; in a pipe text that nothing wraps."""
    console = Console()
    if not console.is_terminal:
        return Console(width=400)
    return Console(width=max(console.width, at_least))


def progress_bar() -> Progress:
    """Return a bar on standard error; nothing where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
