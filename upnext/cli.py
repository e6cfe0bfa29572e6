"""The `upnext` command: one line on standard error and status 2 for what the user can fix."""

import json
import logging
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from upnext.cli_help import Commands, Group, completes, with_examples
from upnext.durations import parse_duration
from upnext.errors import UpnextError, nearest, visible, without_values
from upnext.garbage import collect_seldom
from upnext.kept import keep_private
from upnext.settings import Settings

_JOURNEYS = completes("campaigns/journeys", "campaigns/broadcasts")
_EXPERIENCES = completes("campaigns/experiences")
_SEGMENTS = completes("models/segments")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


# They write into the content, which colleagues share.
_SHARED = {"init", "experiences"}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.pass_context
def commands(context: click.Context) -> None:
    """Upnext: behavioural segments, journeys, calls to action and honest lift, in your own Postgres."""
    if context.invoked_subcommand not in _SHARED:
        keep_private()


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

    sources = _sources()
    is_json = known_source(sources, source).format in ("segment", "json")
    files = landed.find_files(paths, source=source)
    if is_json:
        landed.refuse_other_formats(files)
    settings = Settings.from_environment()
    engine = connect(settings)
    with _progress() as progress:
        task = progress.add_task("loading", total=sum(file.size for file in files))
        done = events.ingest(
            engine, files, sources=sources, loaded_at=utc_now(), keys=Keys.of(settings),
            on_bytes=lambda count: progress.advance(task, count),
        )  # fmt: skip
    _show(done.counts, as_json, title="Ingest")
    for change in done.changed:
        _warn(change)
    if done.refused or done.waiting:
        raise UpnextError("; ".join(done.refused + done.waiting))


@commands.command()
@click.option("--source", help="Only lines of this source.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def rejected(source: str | None, as_json: bool) -> None:
    """List the reasons for rejected lines, each with a count and an example."""
    from upnext.events.declared import known_source  # noqa: PLC0415
    from upnext.events.rejects import summarise  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    if source is not None:
        known_source(_sources(), source)
    reasons = summarise(connect(Settings.from_environment()), source=source)
    if as_json:
        print(json.dumps(reasons))
        return
    if not reasons:
        print("No line is rejected.")
        return
    table = Table(title="Rejected lines", title_justify="left", box=box.HEAVY_HEAD if Console().is_terminal else None)
    for column in ("source", "reason", "lines", "example"):
        table.add_column(column, justify="right" if column == "lines" else "left", overflow="fold")
    for reason in reasons:
        example = Text(visible(f"{reason['place']}\n{reason['detail']}\n{reason['payload']}"), overflow="fold")
        table.add_row(reason["source"], reason["reason"], f"{reason['lines']}", example)
    _console().print(table)


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
        known_source(_sources(), source)
    settings = Settings.from_environment()
    done = rejects.replay(connect(settings), _sources(), keys=Keys.of(settings), source=source, reason=reason)
    _show(asdict(done), as_json, title="Replay of rejected lines")


@commands.command()
@JSON
def check(as_json: bool) -> None:
    """Read all declarations; a mistake names its file, its line and the nearest match."""
    from upnext import operations  # noqa: PLC0415

    _show(operations.check(_project()), as_json, title="No mistakes")


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path))
@JSON
def init(folder: Path, as_json: bool) -> None:
    """Write a new content folder: a segment, a journey, an experience and what they need."""
    from upnext import operations  # noqa: PLC0415

    operations.new_content(folder)
    home = folder.resolve().parent / f".upnext-{folder.resolve().name}"
    _tell(
        {"content": f"{folder.resolve()}", "home": f"{home}"},
        as_json,
        f"written: {folder}\nIt needs a home of its own, so that it is not taken for a change of other content:\n\n"
        f"    export UPNEXT_CONTENT={folder.resolve()} UPNEXT_HOME={home}\n    upnext check",
    )


@commands.command()
@click.option("--as-of", help="Compute at this instant (ISO 8601 with a zone); default: now.")
@JSON
def tick(as_of: str | None, as_json: bool) -> None:
    """Run one whole tick: ingest of the landing folder, dbt, segments, journeys, analytics."""
    from upnext import clock, loop  # noqa: PLC0415
    from upnext.segments.membership import beyond_limits, held_out  # noqa: PLC0415
    from upnext.ticks import instants  # noqa: PLC0415

    asked = clock.utc_now() if as_of is None else instants.parse_instant(as_of, option="--as-of")
    instants.check_explicit(asked, last=None, now=clock.utc_now())
    project = _project()
    if leap := loop.leap(project.engine, asked):
        _warn(leap)
    done = loop.tick(project, None if as_of is None else asked)
    for change in beyond_limits(project.engine):
        _warn(f"{change}")
    for segment, error in held_out(project.engine).items():
        _warn(f"segment '{segment}' was held out, and its members stay as they are: {error}")
    _show(asdict(done), as_json, title=f"Tick {done.tick_id} at {done.as_of:%Y-%m-%d %H:%M:%S} UTC")


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
    with _progress() as progress:
        task = progress.add_task("replaying", total=loop.tick_count(**span, every=step))

        def on_tick(done: loop.Ticked) -> None:
            progress.update(task, advance=1, description=f"{done.as_of:%Y-%m-%d %H:%M}")

        loop.replay(_project(), **span, every=step, is_sending=send, on_tick=on_tick)
    _show_status(as_json)


@commands.command()
@click.argument("segment", metavar="PATH_OR_NAME", shell_complete=_SEGMENTS)
@click.option("--ids", "with_ids", is_flag=True, help="Name those who would enter and leave.")
@JSON
def preview(segment: str, with_ids: bool, as_json: bool) -> None:
    """Show the size of a segment, who would enter and leave, and its overlaps; change nothing."""
    from upnext import operations  # noqa: PLC0415

    started = time.perf_counter()
    found = operations.preview_segment(_project(), segment, with_ids=with_ids)
    shown = {name: value for name, value in asdict(found).items() if with_ids or not name.endswith("_ids")}
    seconds = round(time.perf_counter() - started, 1)
    _show({**shown, "seconds": seconds}, as_json, title=f"Preview of {found.segment}")


@commands.command()
@click.argument("segment", shell_complete=_SEGMENTS)
@click.option("--at", help="At this instant (ISO 8601 with a zone); default: now.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def members(segment: str, at: str | None, as_json: bool) -> None:
    """List the members of a segment, now or at an instant, one id a line."""
    from upnext import clock  # noqa: PLC0415
    from upnext.segments.membership import known_segments, members_at  # noqa: PLC0415
    from upnext.ticks import instants  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    instant = clock.utc_now() if at is None else instants.parse_instant(at, option="--at")
    engine = connect(Settings.from_environment())
    known = {*known_segments(engine), *_project().segments}
    if segment not in known:
        raise UpnextError(f"unknown segment '{segment}'{nearest(segment, known)}")
    found = members_at(engine, segment, instant)
    print(json.dumps(found) if as_json else "\n".join(map(visible, found)), end="\n" if found or as_json else "")


@commands.command()
@click.argument("segment", shell_complete=_SEGMENTS)
@JSON
def release(segment: str, as_json: bool) -> None:
    """Let the next tick apply a change of a segment that its limit held back."""
    from upnext import operations  # noqa: PLC0415

    changes = operations.release_segment(_project(), segment)
    told = f"released: the next tick applies its changes, {changes:,} by the last look"
    _tell({"released": segment, "changes": changes}, as_json, told)


@commands.command()
@JSON
def rebuild(as_json: bool) -> None:
    """Recompute identities, features and users of experiments, repair them, and print how many rows were wrong."""
    from upnext import loop  # noqa: PLC0415

    _show(loop.rebuild(_project()), as_json, title="Rows that were wrong")


@commands.group(cls=Group)
def journeys() -> None:
    """Preview, check, render, explain, start, stop, pause and resume journeys."""


@journeys.command("check")
@JSON
def check_journeys(as_json: bool) -> None:
    """Read every journey and render each message for a made-up user; a mistake names its file and line."""
    from upnext import operations  # noqa: PLC0415

    project = _project()
    written = operations.check_journeys(project, traits=operations.traits_of_users(project))
    _warn_of_copy(project, project.journeys)
    _tell(written, as_json, "\n".join(f"{journey}: {', '.join(steps)}" for journey, steps in written.items()))


def _warn_of_copy(project: Any, journeys: Iterable[str]) -> None:
    from upnext import operations  # noqa: PLC0415

    for doubt in dict.fromkeys(operations.doubtful_copy(project, journeys)):
        _warn(doubt)


@journeys.command("explain")
@click.argument("user")
@click.argument("journey", shell_complete=_JOURNEYS)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def explain_journey(user: str, journey: str, as_json: bool) -> None:
    """Show step by step what happened to a user in a journey, and why."""
    from upnext import operations  # noqa: PLC0415

    lines = operations.explain_journey(_project(), journey, user)
    if as_json:
        print(json.dumps([{"at": line.at, "text": line.text} for line in lines], default=_as_text))
        return
    for line in lines:
        at = f"{line.at:%Y-%m-%d %H:%M}" if line.at is not None else ""
        print(f"{at:16}  {visible(line.text)}")


@journeys.command("render")
@click.argument("journey", shell_complete=_JOURNEYS)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write to.")
@click.option("--user", help="Write them for this user; without it, for a made-up one.")
@JSON
def render_journey(journey: str, out: Path, user: str | None, as_json: bool) -> None:
    """Write each message of a journey or a broadcast into files, as HTML and as text."""
    from upnext import operations  # noqa: PLC0415

    files = [f"{path}" for path in operations.render_journey(_project(), journey, out, user_id=user)]
    _tell({"files": files}, as_json, "\n".join(files))


@journeys.command("test")
@click.argument("journey", shell_complete=_JOURNEYS)
@click.option("--to", "address", required=True, help="The address to send to.")
@click.option("--user", help="Write them for this user; without it, for a made-up one.")
@JSON
def send_test(journey: str, address: str, user: str | None, as_json: bool) -> None:
    """Send each mail of a journey or a broadcast to one address; nothing is recorded."""
    from upnext import operations  # noqa: PLC0415

    sent = operations.send_test(_project(), journey, address, user_id=user)
    settings = Settings.from_environment()
    caught = "" if settings.smtp_url else f" (caught in {settings.maildir}: UPNEXT_SMTP_URL is not set)"
    _tell({"sent": sent}, as_json, f"sent to {address}{caught}: {', '.join(sent)}")


@journeys.command("preview")
@click.argument("journey", shell_complete=_JOURNEYS)
@click.option("--ids", "with_ids", is_flag=True, help="Name those who would enter and get something.")
@JSON
def preview_journey(journey: str, with_ids: bool, as_json: bool) -> None:
    """Show who would enter a journey at the newest tick, and its messages; change nothing."""
    from upnext import operations  # noqa: PLC0415

    project = _project()
    found = asdict(operations.preview_journey(project, journey))
    ids = found.pop("entering_ids")
    _show({**found, **({"entering_ids": ids} if with_ids else {})}, as_json, title=f"Preview of {journey}")
    if not as_json and journey in project.started:
        print("It is started: whoever could enter before has done so.")
    _warn_of_copy(project, [journey])


@journeys.command("start")
@click.argument("journey", shell_complete=_JOURNEYS)
@JSON
def start_journey(journey: str, as_json: bool) -> None:
    """Start a journey: from the next dispatch on, people enter it and get its messages."""
    from upnext import operations, switches  # noqa: PLC0415

    project = _project()
    operations.start(project, "journey", journey, by=switches.this_user())
    _warn_of_copy(project, [journey])
    _let_the_ui_see()
    told = f"started: {journey} acts from the next dispatch on; `upnext journeys stop {journey}` ends it"
    _tell({"started": journey}, as_json, told)


@journeys.command("stop")
@click.argument("journey", shell_complete=_JOURNEYS)
@JSON
def stop_journey(journey: str, as_json: bool) -> None:
    """Stop a journey: everybody in it exits, and nothing more is sent."""
    from upnext import operations, switches  # noqa: PLC0415

    ended = operations.stop(_project(), "journey", journey, by=switches.this_user())
    told = f"stopped: {ended:,} users exited {journey}, reason `journey stopped`"
    _tell({"stopped": journey, "exited": ended}, as_json, told)


@journeys.command()
@click.argument("journey", shell_complete=_JOURNEYS)
@JSON
def pause(journey: str, as_json: bool) -> None:
    """Pause a journey: nobody in it moves on, and nothing is sent."""
    from upnext import operations  # noqa: PLC0415

    operations.pause_journey(_project(), journey)
    told = f"paused: nobody in {journey} goes on until `upnext journeys resume {journey}`"
    _tell({"paused": journey}, as_json, told)


@journeys.command()
@click.argument("journey", shell_complete=_JOURNEYS)
@JSON
def resume(journey: str, as_json: bool) -> None:
    """Resume a journey; every later step moves back by the length of the pause."""
    from upnext import operations  # noqa: PLC0415

    entries = operations.resume_journey(_project(), journey)
    told = f"resumed: {entries:,} users go on where they were"
    _tell({"resumed": journey, "users": entries}, as_json, told)


@commands.group(cls=Group)
def experiences() -> None:
    """Start and stop experiences, and learn which copy is for whom."""


@experiences.command("start")
@click.argument("experience", shell_complete=_EXPERIENCES)
@JSON
def start_experience(experience: str, as_json: bool) -> None:
    """Start an experience: members of its segment are assigned an arm, and see what it shows."""
    from upnext import operations, switches  # noqa: PLC0415

    operations.start(_project(), "experience", experience, by=switches.this_user())
    _let_the_ui_see()
    told = f"started: {experience} is shown from now on; `upnext experiences stop {experience}` ends it"
    _tell({"started": experience}, as_json, told)


@experiences.command("learn")
@click.argument("experience", shell_complete=_EXPERIENCES)
@JSON
def learn_experience(experience: str, as_json: bool) -> None:
    """Propose which copy of an experience to show to whom, from its results so far, in a file to review."""
    from upnext import operations  # noqa: PLC0415

    sentence, path = operations.learn_experience(_project(), experience)
    rules = f"\n{path} has the rules. Nothing follows them until you have read and kept the file."
    file = None if path is None else f"{path}"
    _tell({"found": sentence, "file": file}, as_json, sentence + (rules if path is not None else ""))


@experiences.command("stop")
@click.argument("experience", shell_complete=_EXPERIENCES)
@JSON
def stop_experience(experience: str, as_json: bool) -> None:
    """Stop an experience: nobody sees it; assignments and results stay."""
    from upnext import operations, switches  # noqa: PLC0415

    operations.stop(_project(), "experience", experience, by=switches.this_user())
    _tell({"stopped": experience}, as_json, f"stopped: {experience} is shown to nobody")


@commands.command("plan")
@click.argument("name")
@JSON
def plan_experiment(name: str, as_json: bool) -> None:
    """Show how long a journey, a broadcast or an experience will take until its results say what to do."""
    from upnext import operations  # noqa: PLC0415
    from upnext.analytics.results import read_results  # noqa: PLC0415
    from upnext.analytics.text import plan_in_words  # noqa: PLC0415

    project = _project()
    found = asdict(operations.plan_experiment(project, name))
    if as_json:
        print(json.dumps(found))
        return
    print(plan_in_words(name, found))
    for row in read_results(project.engine):
        if row["experiment"] == name:
            print(f"It is at work, and its results say: {row['decision']} ({row['arm']}; see `upnext results`).")


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list, with all that is known.")
def results(as_json: bool) -> None:
    """Show the effect of each experiment on its goal at the newest analysis, and what to do."""
    from upnext.analytics.programme import read as read_programme  # noqa: PLC0415
    from upnext.analytics.results import read_results  # noqa: PLC0415
    from upnext.analytics.text import HEADINGS, notes, programme_sentence, table  # noqa: PLC0415

    project = _project()
    found = read_results(project.engine)
    if as_json:
        print(json.dumps(found, default=_as_text))
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
        _console(at_least=needed).print(shown)
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

    path = write(_project())
    _tell({"file": f"{path}"}, as_json, f"written: {path}")
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
    _tell({"file": f"{path}"}, as_json, f"written: {path}")
    if not no_open and not as_json and sys.stdout.isatty():
        click.launch(path.as_uri())


@commands.command()
@JSON
def status(as_json: bool) -> None:
    """Show watermarks, members by segment, messages by status, the last run and drift."""
    _show_status(as_json)


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
        _console().print(table)
    if any(finding.state == "wrong" for finding in findings):
        sys.exit(1)


def _place() -> Any:
    """Where people are known."""
    from upnext.erased import Keys  # noqa: PLC0415
    from upnext.people.erase import Place  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    settings = Settings.from_environment()
    folders = (settings.landing, settings.archive)
    return Place(connect(settings), folders, settings.maildir, _sources(), Keys.of(settings))


@commands.command("export")
@click.argument("person", metavar="ID")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write.")
@JSON
def export_person(person: str, out: Path, as_json: bool) -> None:
    """Write all that is known of a user, by an id or an address, into a file of JSON lines."""
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.people.export import export  # noqa: PLC0415

    with _progress() as progress:
        task = progress.add_task("reading", total=None)
        counts = export(
            _place(), person, out, now=utc_now(), on_table=lambda table: progress.update(task, description=table)
        )
    _show({**counts, "file": f"{out}"}, as_json, title="Known")


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
    with _progress() as progress:
        task = progress.add_task("erasing", total=None)
        place = _place()
        # A list that names the person stops the erasure: the list as its file has it now.
        store_lists(place.engine, list_files(Settings.from_environment().lists))
        done = erase(place, person, now=utc_now(), on_stage=lambda stage: progress.update(task, description=stage))
    _show(done.counts or {"left": 0}, as_json, title="Erased")
    for path in done.elsewhere:
        _warn(f"may still have them, and is not in the landing folder or cannot be read: {path}")


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
    _tell({"readmitted": people}, as_json, f"readmitted: {', '.join(people)}; what happened before stays erased")


@commands.command()
@click.option("--sent-until", help="When the other one stopped sending (ISO 8601 with a zone); default: now.")
@JSON
def adopt(sent_until: str | None, as_json: bool) -> None:
    """Let a warehouse that was restored from a backup send, in the place of the one it is a copy of."""
    from upnext import clock, loop  # noqa: PLC0415
    from upnext.origin import is_a_copy  # noqa: PLC0415
    from upnext.ticks import instants  # noqa: PLC0415

    now = clock.utc_now()
    until = now if sent_until is None else instants.parse_instant(sent_until, option="--sent-until")
    instants.check_explicit(until, last=None, now=now)
    project = _project()
    with project.engine.connect() as connection:
        if not is_a_copy(connection):
            raise UpnextError("this warehouse is no copy of another one; there is nothing to adopt")
    done = loop.adopt_copy(project, sent_until=until, now=now)
    _show(asdict(done), as_json, title="Adopted; left unsent")


@commands.command()
@click.option("--prefix", default="upnext_", show_default=True, help="How the names of the roles begin.")
@click.option("--sql", is_flag=True, help="Print the statements, and change nothing.")
@JSON
def roles(prefix: str, sql: bool, as_json: bool) -> None:
    """Make roles of Postgres with few rights: collector, edge, sender, operator, analyst, reader."""
    from upnext.warehouse import roles  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    engine = connect(Settings.from_environment())
    if sql:
        text = ";\n".join(roles.statements(prefix, **roles.known(engine))) + ";"
        _tell({"sql": text}, as_json, text)
        return
    made = roles.make(engine, prefix)
    told = [f"{name}: {role.purpose}" for name, role in zip(made, roles.ROLES.values(), strict=True)]
    _tell({"roles": made}, as_json, "\n".join(told))


@commands.command("prune")
@JSON
def prune_old(as_json: bool) -> None:
    """Delete and archive what is older than the policy keeps it; Dagster does so every night."""
    from upnext import loop  # noqa: PLC0415
    from upnext.clock import utc_now  # noqa: PLC0415

    project = _project()
    project.check()
    with _progress() as progress:
        task = progress.add_task("deleting", total=None)
        done = loop.prune_old(project, utc_now(), on_stage=lambda stage: progress.update(task, description=stage))
    _show(done or {"deleted": 0}, as_json, title="Deleted")


@commands.command()
@JSON
def upgrade(as_json: bool) -> None:
    """Upgrade a warehouse of an earlier release, once; make a backup of it first."""
    from upnext.warehouse import engine  # noqa: PLC0415

    is_upgraded = engine.upgrade(Settings.from_environment())
    told = "upgraded: the next tick brings dbt's tables along" if is_upgraded else "up to date: nothing to upgrade"
    _tell({"upgraded": is_upgraded}, as_json, told)


@commands.command()
@JSON
def url(as_json: bool) -> None:
    """Print the URL of the warehouse; start the embedded server if it does not run."""
    from upnext.warehouse.engine import database_url  # noqa: PLC0415

    found = database_url(Settings.from_environment()).render_as_string(hide_password=False)
    _tell({"url": found}, as_json, found)


@commands.command()
@JSON
def env(as_json: bool) -> None:
    """Print the variables that dbt and psql need, for a shell: eval "$(upnext env)"."""
    from upnext import dbt  # noqa: PLC0415
    from upnext.warehouse.engine import database_url  # noqa: PLC0415

    settings = Settings.from_environment()
    found = dbt.shell_environment(settings, database_url(settings))
    _tell(found, as_json, "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items()))


@commands.command()
@click.option("--port", default=8080, show_default=True, help="Of the pages.")
@click.option("--no-serve", is_flag=True, help="Only write the pages, and say where they lie.")
def docs(port: int, no_serve: bool) -> None:
    """Write dbt's documentation of all models, and serve it on 127.0.0.1."""
    from upnext import dbt  # noqa: PLC0415

    project = _project()
    folder = dbt.write_docs(project.settings, project.engine.url)
    print(f"written: {folder / 'static_index.html'}")
    if not no_serve:
        sys.exit(dbt.serve_docs(project.settings, project.engine.url, port=port))


@commands.command()
@click.option("--yes", is_flag=True, help="Also while the UI runs, without asking.")
@JSON
def down(yes: bool, as_json: bool) -> None:
    """Stop the embedded Postgres."""
    from upnext.dev import running_on  # noqa: PLC0415
    from upnext.warehouse.engine import embedded_server  # noqa: PLC0415

    settings = Settings.from_environment()
    port = running_on(settings)
    if port is not None and not yes:
        told = f"Upnext runs in this home, on http://127.0.0.1:{port}, and would lose its database"
        if not sys.stdin.isatty():
            raise UpnextError(f"{told}; end it first (Ctrl-C, or kill), or use upnext down --yes")
        click.confirm(f"{told}. Stop it all the same?", abort=True)
    is_stopped = embedded_server(settings).stop()
    _tell({"stopped": is_stopped}, as_json, "stopped" if is_stopped else "not running")


@commands.command()
@click.option("--port", default=3000, show_default=True, help="Of the UI.")
@click.option("--edge-port", default=8790, show_default=True, help="Of the edge.")
def dev(port: int, edge_port: int) -> None:
    """Run the Dagster UI, its daemon and the edge, with schedules and sensors, on 127.0.0.1."""
    from upnext.dev import serve  # noqa: PLC0415

    sys.exit(serve(Settings.from_environment(), port=port, edge_port=edge_port))


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
    for did in work(settings, stop=stop, on_failure=_warn, once=once, leaves_files=leave_files):
        changes = ", ".join(f"{what} {count:,}" for what, count in did.changes.items() if count)
        print(f"{did.as_of:%H:%M:%S} {did.what}{': ' if changes else ''}{changes}", flush=True)


@commands.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8790, show_default=True, help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes.")
def edge(host: str, port: int, workers: int) -> None:
    """Serve HTTP: take events from Segment's clients, in the browser and on servers."""
    from upnext.edge.server import serve  # noqa: PLC0415
    from upnext.warehouse.engine import connect, database_url  # noqa: PLC0415

    settings = Settings.from_environment()
    connect(settings).dispose()
    database = database_url(settings).render_as_string(hide_password=False)
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

    if known_source(_sources(), source).format != "segment":
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
    _console().print(table)


@keys.command("disable")
@click.argument("key_id", type=int)
@JSON
def disable_key(key_id: int, as_json: bool) -> None:
    """Disable a key; the edge refuses it within 10 seconds."""
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.edge import manage  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    manage.disable_key(connect(Settings.from_environment()), key_id, now=utc_now())
    _tell({"disabled": key_id}, as_json, f"key {key_id} is disabled")


@commands.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options and names; put it into the shell's settings."""
    kind = get_completion_class(shell)
    if kind is not None:
        print(kind(commands, {}, "upnext", "_UPNEXT_COMPLETE").source())


with_examples(commands)


def main() -> None:
    """Run the command line."""
    collect_seldom()
    from psycopg import Error  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    # It warns of a COPY that a lost connection ended; the error itself is what we tell.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        commands.main(sys.argv[1:] or ["--help"], prog_name="upnext", standalone_mode=False)
    except (UpnextError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        _fail(text, 2)
    except DBAPIError as error:
        _fail(f"the database: {without_values(str(error.orig))}", 1)
    except Error as error:
        _fail(f"the database: {without_values(str(error))}", 1)
    except OSError as error:
        _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 2)
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped", 130)


def _fail(text: str, code: int) -> None:
    print("upnext: " + visible(" ".join(text.split())), file=sys.stderr)
    sys.exit(code)


def _warn(text: str) -> None:
    print("upnext: warning: " + visible(" ".join(text.split())), file=sys.stderr)


def _let_the_ui_see() -> None:
    """Let a UI that runs in this home read what is declared: what was started may be newer than it is."""
    from upnext.dev import reload, running_on  # noqa: PLC0415

    port = running_on(Settings.from_environment())
    if port is not None and not reload(port):
        _warn(f"the UI on http://127.0.0.1:{port} does not answer: reload its code location, Deployment, Reload")


def _sources() -> dict[str, Any]:
    from upnext.events.declared import load_sources  # noqa: PLC0415

    return load_sources(Settings.from_environment().sources)


def _project() -> Any:
    from upnext.project import Project  # noqa: PLC0415

    return Project(Settings.from_environment())


def _console(*, at_least: int = 0) -> Console:
    """Return what prints tables: as wide as the terminal, or as a word needs; in a pipe text that nothing wraps."""
    console = Console()
    if not console.is_terminal:
        return Console(width=400)
    return Console(width=max(console.width, at_least))


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _show_status(as_json: bool = False) -> None:
    from upnext import operations  # noqa: PLC0415

    found = operations.status(_project())
    _show(found, as_json, title="Status")
    if not as_json and found["watermarks"]["as_of"] is None:
        print(
            "Nothing has been computed yet: load events (`upnext ingest FILE`, or drop files into landing), then tick."
        )


def _show(values: Mapping[str, Any], as_json: bool, *, title: str) -> None:
    if as_json:
        print(json.dumps(values, default=_as_text))
        return
    is_terminal = Console().is_terminal
    _console().print(title, style="italic")
    table = Table(show_header=False, box=box.HEAVY_HEAD if is_terminal else None)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in values.items():
        if isinstance(value, Mapping):
            table.add_section()
            for inner, number in value.items():
                table.add_row(f"{name}: {inner}", _as_text(number))
            if not value:
                table.add_row(name, "none")
        else:
            table.add_row(name, _as_text(value))
    _console().print(table)


def _tell(values: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print what a command did: a sentence, or one JSON object."""
    print(json.dumps(values, default=_as_text) if as_json else text)


def _as_text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "none"
    return "none" if value is None else visible(f"{value}")
