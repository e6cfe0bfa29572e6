"""Commands for segments."""

import json
import time
from dataclasses import asdict

import click

from upnext.cli.content import SEGMENTS, project_here
from upnext.cli.group import commands
from upnext.cli.output import JSON, show, tell
from upnext.errors import UpnextError, nearest, visible
from upnext.settings import Settings


@commands.command()
@click.argument("segment", metavar="PATH_OR_NAME", shell_complete=SEGMENTS)
@click.option("--ids", "with_ids", is_flag=True, help="Name those who would enter and leave.")
@JSON
def preview(segment: str, with_ids: bool, as_json: bool) -> None:
    """Show the size of a segment, who would enter and leave, and its overlaps; change nothing."""
    from upnext.operations import previews  # noqa: PLC0415

    started = time.perf_counter()
    found = previews.preview_segment(project_here(), segment, with_ids=with_ids)
    shown = {name: value for name, value in asdict(found).items() if with_ids or not name.endswith("_ids")}
    seconds = round(time.perf_counter() - started, 1)
    show({**shown, "seconds": seconds}, as_json, title=f"Preview of {found.segment}")


@commands.command()
@click.argument("segment", shell_complete=SEGMENTS)
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
    known = {*known_segments(engine), *project_here().segments}
    if segment not in known:
        raise UpnextError(f"unknown segment '{segment}'{nearest(segment, known)}")
    found = members_at(engine, segment, instant)
    print(json.dumps(found) if as_json else "\n".join(map(visible, found)), end="\n" if found or as_json else "")


@commands.command()
@click.argument("segment", shell_complete=SEGMENTS)
@JSON
def release(segment: str, as_json: bool) -> None:
    """Let the next tick apply a change of a segment that its limit held back."""
    from upnext.operations import controls  # noqa: PLC0415

    changes = controls.release_segment(project_here(), segment)
    told = f"released: the next tick applies its changes, {changes:,} by the last look"
    tell({"released": segment, "changes": changes}, as_json, told)
