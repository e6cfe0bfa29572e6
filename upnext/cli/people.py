"""Commands about what is known of people, and for how long."""

import sys
from pathlib import Path
from typing import Any

import click

from upnext.cli.content import project_here, sources_here
from upnext.cli.group import commands
from upnext.cli.output import JSON, progress_bar, show, tell, warn
from upnext.settings import Settings


@commands.command("export")
@click.argument("person", metavar="ID")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@JSON
def export_person(person: str, out: Path, as_json: bool) -> None:
    """Write all that is known of a user, by an id or an address, into a file of JSON lines."""
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.people.export import export  # noqa: PLC0415

    with progress_bar() as progress:
        task = progress.add_task("reading", total=None)
        counts = export(
            _place(), person, out, now=utc_now(), on_table=lambda table: progress.update(task, description=table)
        )
    show({**counts, "file": f"{out}"}, as_json, title="Known")


@commands.command("erase")
@click.argument("person", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@JSON
def erase_person(person: str, yes: bool, as_json: bool) -> None:
    """Erase a user for good, by an id or an address; nothing of them is loaded or mailed again."""
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.people.erase import erase  # noqa: PLC0415
    from upnext.segments.lists import list_files, store_lists  # noqa: PLC0415

    if sys.stdin.isatty() and not yes:
        click.confirm(f"Erase {person} from the warehouse, the landed files and the mails, for good?", abort=True)
    with progress_bar() as progress:
        task = progress.add_task("erasing", total=None)
        place = _place()
        # A list that names the person stops the erasure: the list as its file has it now.
        store_lists(place.engine, list_files(Settings.from_environment().lists))
        done = erase(place, person, now=utc_now(), on_stage=lambda stage: progress.update(task, description=stage))
    show(done.counts or {"left": 0}, as_json, title="Erased")
    for path in done.elsewhere:
        warn(f"may still have them, and is not in the landing folder or cannot be read: {path}")


@commands.command()
@click.argument("people", metavar="ID...", nargs=-1, required=True)
@JSON
def readmit(people: tuple[str, ...], as_json: bool) -> None:
    """Let somebody who was erased come back: load and mail again what happens from now on."""
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.erased import readmit  # noqa: PLC0415

    place = _place()
    with place.engine.begin() as connection:
        readmit(connection, place.keys, people, at=utc_now())
    tell({"readmitted": people}, as_json, f"readmitted: {', '.join(people)}; what happened before stays erased")


@commands.command("prune")
@JSON
def prune_old(as_json: bool) -> None:
    """Delete and archive what is older than the policy keeps it; Dagster does so every night."""
    from upnext import loop  # noqa: PLC0415
    from upnext.clock import utc_now  # noqa: PLC0415

    project = project_here()
    project.check()
    with progress_bar() as progress:
        task = progress.add_task("deleting", total=None)
        done = loop.prune_old(project, utc_now(), on_stage=lambda stage: progress.update(task, description=stage))
    show(done or {"deleted": 0}, as_json, title="Deleted")


def _place() -> Any:
    """Where people are known."""
    from upnext.erased import Keys  # noqa: PLC0415
    from upnext.people.erase import Place  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    settings = Settings.from_environment()
    folders = (settings.landing, settings.archive)
    return Place(connect(settings), folders, settings.maildir, sources_here(), Keys.of(settings))
