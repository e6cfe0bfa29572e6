"""Commands that load events and compute."""

import json
import signal
import threading
from dataclasses import asdict
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from upnext.cli.content import project_here, sources_here
from upnext.cli.group import commands
from upnext.cli.output import JSON, console, progress_bar, show, show_status, warn
from upnext.durations import parse_duration
from upnext.errors import UpnextError, visible
from upnext.settings import Settings


@commands.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--source", default="segment", show_default=True, help="How to read the lines: a file of sources/.")
@JSON
def ingest(paths: tuple[Path, ...], source: str, as_json: bool) -> None:
    """Load files or folders of events; skip files that are loaded already."""
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.erased import Keys  # noqa: PLC0415
    from upnext.events import files as landed  # noqa: PLC0415
    from upnext.events import ingest as events  # noqa: PLC0415
    from upnext.events.declared import known_source  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    sources = sources_here()
    is_json = known_source(sources, source).format in ("segment", "json")
    files = landed.find_files(paths, source=source)
    if is_json:
        landed.refuse_other_formats(files)
    settings = Settings.from_environment()
    engine = connect(settings)
    with progress_bar() as progress:
        task = progress.add_task("loading", total=sum(file.size for file in files))
        done = events.ingest(
            engine, files, sources=sources, loaded_at=utc_now(), keys=Keys.of(settings),
            on_bytes=lambda count: progress.advance(task, count),
        )  # fmt: skip
    show(done.counts, as_json, title="Ingest")
    for change in done.changed:
        warn(change)
    if done.rejected:
        warn(f"{done.rejected:,} lines were rejected: `upnext rejected` says why")
    if done.refused or done.waiting:
        raise UpnextError("; ".join(done.refused + done.waiting))


@commands.command()
@click.option("--as-of", help="Compute at this instant (ISO 8601 with a zone); default: now.")
@JSON
def tick(as_of: str | None, as_json: bool) -> None:
    """Run one whole tick: ingest of the landing folder, dbt, segments, journeys, analytics."""
    from upnext import clock, loop  # noqa: PLC0415
    from upnext.segments.membership import beyond_limits, not_evaluated  # noqa: PLC0415
    from upnext.ticks import instants  # noqa: PLC0415

    asked = clock.utc_now() if as_of is None else instants.parse_instant(as_of, option="--as-of")
    instants.check_explicit(asked, last=None, now=clock.utc_now())
    project = project_here()
    if leap := loop.leap(project.engine, asked):
        warn(leap)
    done = loop.tick(project, None if as_of is None else asked)
    for file in done.refused:
        warn(f"refused: {file}")
    for change in beyond_limits(project.engine):
        warn(f"{change}")
    for segment, error in not_evaluated(project.engine).items():
        warn(f"segment '{segment}' was not evaluated, and its members stay as they are: {error}")
    title = f"Tick {done.tick_id} at {done.as_of:%Y-%m-%d %H:%M:%S} UTC"
    show({name: value for name, value in asdict(done).items() if name != "refused"}, as_json, title=title)


@commands.command()
@click.option("--from", "start", required=True, help="First instant (ISO 8601 with a zone).")
@click.option("--to", "end", required=True, help="Last instant.")
@click.option("--every", default="1d", show_default=True, help="Distance between ticks, such as 1d, 6h or 30m.")
@click.option("--send", is_flag=True, help="Send what falls due; without it messages are skipped, reason `replay`.")
@JSON
def replay(start: str, end: str, every: str, send: bool, as_json: bool) -> None:
    """Run one tick after the other through history."""
    from upnext import loop  # noqa: PLC0415
    from upnext.ticks import instants  # noqa: PLC0415

    span = {
        "start": instants.parse_instant(start, option="--from"),
        "end": instants.parse_instant(end, option="--to"),
    }
    step = parse_duration(every, option="--every")
    with progress_bar() as progress:
        task = progress.add_task("replaying", total=loop.tick_count(**span, every=step))

        def on_tick(done: loop.Ticked) -> None:
            progress.update(task, advance=1, description=f"{done.as_of:%Y-%m-%d %H:%M}")

        loop.replay(project_here(), **span, every=step, is_sending=send, on_tick=on_tick)
    show_status(as_json)


@commands.command()
@click.option("--once", is_flag=True, help="End as soon as nothing waits.")
@click.option("--leave-files", is_flag=True, help="Leave files of the landing folder to Dagster's sensor.")
def live(once: bool, leave_files: bool) -> None:
    """Tick in one warm process as soon as events wait, and dispatch as soon as steps fall due."""
    from upnext.live import live as work  # noqa: PLC0415

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    folder = "" if leave_files else ", the landing folder"
    print(f"Watching the inbox{folder} and the journeys (Ctrl-C ends it)", flush=True)
    settings = Settings.from_environment()
    for did in work(settings, stop=stop, on_failure=lambda words, _: warn(words), once=once, leaves_files=leave_files):
        changes = ", ".join(f"{what} {count:,}" for what, count in did.changes.items() if count)
        print(f"{did.as_of:%H:%M:%S} {did.what}{': ' if changes else ''}{changes}", flush=True)


@commands.command()
@click.option("--source", help="Only lines of this source.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def rejected(source: str | None, as_json: bool) -> None:
    """List the reasons for rejected lines, each with a count and an example, and the files that were refused."""
    from upnext.events.declared import known_source  # noqa: PLC0415
    from upnext.events.ledger import refused_files  # noqa: PLC0415
    from upnext.events.rejects import summarise  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    if source is not None:
        known_source(sources_here(), source)
    engine = connect(Settings.from_environment())
    reasons = summarise(engine, source=source)
    refused = refused_files(engine, source=source)
    if as_json:
        print(json.dumps([*reasons, *refused]))
        return
    for file in refused:
        print(visible(f"refused: {file['place']}: {file['detail']}"))
    if not reasons:
        print("No line is rejected.")
        return
    table = Table(title="Rejected lines", title_justify="left", box=box.HEAVY_HEAD if Console().is_terminal else None)
    for column in ("source", "reason", "lines", "example"):
        table.add_column(column, justify="right" if column == "lines" else "left", overflow="fold")
    for reason in reasons:
        example = Text(visible(f"{reason['place']}\n{reason['detail']}\n{reason['payload']}"), overflow="fold")
        table.add_row(reason["source"], reason["reason"], f"{reason['lines']}", example)
    console().print(table)


@commands.command("replay-rejected")
@click.option("--source", help="Only lines of this source.")
@click.option("--reason", help="Only lines that were rejected for this reason.")
@JSON
def replay_rejected(source: str | None, reason: str | None, as_json: bool) -> None:
    """Load the rejected lines that a corrected mapping accepts."""
    from upnext.erased import Keys  # noqa: PLC0415
    from upnext.events import rejects  # noqa: PLC0415
    from upnext.events.declared import known_source  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    if source is not None:
        known_source(sources_here(), source)
    settings = Settings.from_environment()
    done = rejects.replay(connect(settings), sources_here(), keys=Keys.of(settings), source=source, reason=reason)
    show(asdict(done), as_json, title="Replay of rejected lines")


@commands.command()
@JSON
def rebuild(as_json: bool) -> None:
    """Recompute identities, features and users of experiments, repair them, and print how many rows were wrong."""
    from upnext import loop  # noqa: PLC0415

    show(loop.rebuild(project_here()), as_json, title="Rows that were wrong")
