"""Commands that show what worked."""

import json
import sys

import click
from rich.console import Console
from rich.table import Table

from upnext.cli.content import project_here
from upnext.cli.group import commands
from upnext.cli.output import JSON, as_text, console, tell
from upnext.errors import UpnextError
from upnext.settings import Settings


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, with all that is known.")
def results(as_json: bool) -> None:
    """Show the effect of each experiment on its goal at the newest analysis, and what to do."""
    from upnext.analytics.programme import read as read_programme  # noqa: PLC0415
    from upnext.analytics.results import read_results  # noqa: PLC0415
    from upnext.analytics.text import HEADINGS, notes, programme_sentence, table  # noqa: PLC0415

    project = project_here()
    found = read_results(project.engine)
    if as_json:
        print(json.dumps(found, default=as_text))
        return
    if not found:
        print(
            "No results yet: an analysis writes them once a journey or an experience is started and somebody has seen"
            " it (`upnext journeys start NAME`, `upnext experiences start NAME`, `upnext tick`)."
        )
        return
    lines = [HEADINGS, *table(found)]
    needed = sum(max(len(line[place]) for line in lines) + 2 for place in range(len(HEADINGS)))
    if Console().is_terminal and Console().width < needed:
        # A narrow terminal shows one below the other: no number is cut.
        for name, *values in lines[1:]:
            print(name)
            for heading, value in zip(HEADINGS[1:], values, strict=True):
                print(f"  {heading:20} {value}")
    else:
        shown = Table(title="Results", title_justify="left", box=None, pad_edge=False)
        for heading in HEADINGS:
            shown.add_column(heading, no_wrap=True)
        for line in lines[1:]:
            shown.add_row(*line)
        console(at_least=needed).print(shown)
    for note in notes(found):
        print(note)
    if (programme := read_programme(project.engine)) is not None:
        print(f"\n{programme_sentence(programme)}")


@commands.command()
@click.option("--no-open", is_flag=True, help="Only write the page, and say where it lies.")
@JSON
def report(no_open: bool, as_json: bool) -> None:
    """Write the report, one page of all results, and open it in the browser."""
    from upnext.report.write import write  # noqa: PLC0415

    path = write(project_here())
    tell({"file": f"{path}"}, as_json, f"written: {path}")
    if not no_open and not as_json and sys.stdout.isatty():
        click.launch(path.as_uri())


@commands.command()
@click.argument("name")
@click.argument("parameters", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--no-open", is_flag=True, help="Only write the page, and say where it lies.")
@JSON
def notebook(name: str, parameters: tuple[str, ...], no_open: bool, as_json: bool) -> None:
    """Run a notebook of notebooks/ on the newest tick, and open it in the browser as a page."""
    from upnext.report import notebooks  # noqa: PLC0415

    given = dict(pair.partition("=")[::2] for pair in parameters)
    if wrong := [pair for pair in parameters if "=" not in pair]:
        raise UpnextError(f"'{wrong[0]}' is no parameter; give it as KEY=VALUE, such as days=30")
    path = notebooks.run(Settings.from_environment(), name, given)
    tell({"file": f"{path}"}, as_json, f"written: {path}")
    if not no_open and not as_json and sys.stdout.isatty():
        click.launch(path.as_uri())
