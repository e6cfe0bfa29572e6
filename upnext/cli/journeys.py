"""Commands for journeys and experiences."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC
from pathlib import Path
from typing import Any

import click

from upnext.cli.content import EXPERIENCES, JOURNEYS, project_here
from upnext.cli.group import commands
from upnext.cli.help import Group
from upnext.cli.output import JSON, as_text, show, tell, warn
from upnext.errors import visible
from upnext.settings import Settings


@commands.group(cls=Group)
def journeys() -> None:
    """Preview, check, render, explain, start, stop, pause and resume journeys."""


@journeys.command("check")
@JSON
def check_journeys(as_json: bool) -> None:
    """Read every journey and render each message for a made-up user; a mistake names its file and line."""
    from upnext.operations import checks, copies  # noqa: PLC0415

    project = project_here()
    written = checks.check_journeys(project, traits=copies.traits_of_users(project))
    _warn_of_copy(project, project.journeys)
    tell(written, as_json, "\n".join(f"{journey}: {', '.join(steps)}" for journey, steps in written.items()))


def _warn_of_copy(project: Any, journeys: Iterable[str]) -> None:
    from upnext.operations import checks  # noqa: PLC0415

    for doubt in dict.fromkeys(checks.doubtful_copy(project, journeys)):
        warn(doubt)


@journeys.command("explain")
@click.argument("user")
@click.argument("journey", shell_complete=JOURNEYS)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def explain_journey(user: str, journey: str, as_json: bool) -> None:
    """Show step by step what happened to a user in a journey, and why."""
    from upnext.operations import previews  # noqa: PLC0415

    lines = previews.explain_journey(project_here(), journey, user)
    if as_json:
        print(json.dumps([{"at": line.at, "text": line.text} for line in lines], default=as_text))
        return
    for line in lines:
        at = f"{line.at:%Y-%m-%d %H:%M}" if line.at is not None else ""
        print(f"{at:16}  {visible(line.text)}")


@journeys.command("render")
@click.argument("journey", shell_complete=JOURNEYS)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write to.")
@click.option("--user", help="Write them for this user; without it, for a made-up one.")
@JSON
def render_journey(journey: str, out: Path, user: str | None, as_json: bool) -> None:
    """Write each message of a journey or a broadcast into files, as HTML and as text."""
    from upnext.operations import copies  # noqa: PLC0415

    files = [f"{path}" for path in copies.render_journey(project_here(), journey, out, user_id=user)]
    tell({"files": files}, as_json, "\n".join(files))


@journeys.command("test")
@click.argument("journey", shell_complete=JOURNEYS)
@click.option("--to", "address", required=True, help="The address to send to.")
@click.option("--user", help="Write them for this user; without it, for a made-up one.")
@JSON
def send_test(journey: str, address: str, user: str | None, as_json: bool) -> None:
    """Send each mail of a journey or a broadcast to one address; nothing is recorded."""
    from upnext.operations import copies  # noqa: PLC0415

    sent = copies.send_test(project_here(), journey, address, user_id=user)
    settings = Settings.from_environment()
    caught = "" if settings.smtp_url else f" (caught in {settings.maildir}: UPNEXT_SMTP_URL is not set)"
    tell({"sent": sent}, as_json, f"sent to {address}{caught}: {', '.join(sent)}")


@journeys.command("preview")
@click.argument("journey", shell_complete=JOURNEYS)
@click.option("--ids", "with_ids", is_flag=True, help="Name those who would enter and get something.")
@JSON
def preview_journey(journey: str, with_ids: bool, as_json: bool) -> None:
    """Show who would enter a journey at the newest tick, and its messages; change nothing."""
    from upnext.operations import previews  # noqa: PLC0415

    project = project_here()
    found = asdict(previews.preview_journey(project, journey))
    ids = found.pop("entering_ids")
    show({**found, **({"entering_ids": ids} if with_ids else {})}, as_json, title=f"Preview of {journey}")
    if not as_json and journey in project.started:
        print("It is started: whoever could enter before has done so.")
    _warn_of_copy(project, [journey])


@journeys.command("start")
@click.argument("journey", shell_complete=JOURNEYS)
@JSON
def start_journey(journey: str, as_json: bool) -> None:
    """Start a journey: from the next dispatch on, people enter it and get its messages."""
    from upnext import switches  # noqa: PLC0415
    from upnext.operations import controls  # noqa: PLC0415

    project = project_here()
    controls.start(project, "journey", journey, by=switches.this_user())
    _warn_of_copy(project, [journey])
    _let_the_ui_see()
    told = f"started: {journey} acts from the next dispatch on; `upnext journeys stop {journey}` ends it"
    tell({"started": journey}, as_json, told)


@journeys.command("stop")
@click.argument("journey", shell_complete=JOURNEYS)
@JSON
def stop_journey(journey: str, as_json: bool) -> None:
    """Stop a journey: everybody in it exits, and nothing more is sent."""
    from upnext import switches  # noqa: PLC0415
    from upnext.operations import controls  # noqa: PLC0415

    ended = controls.stop(project_here(), "journey", journey, by=switches.this_user())
    told = f"stopped: {ended:,} users exited {journey}, reason `journey stopped`"
    tell({"stopped": journey, "exited": ended}, as_json, told)


@journeys.command()
@click.argument("journey", shell_complete=JOURNEYS)
@JSON
def pause(journey: str, as_json: bool) -> None:
    """Pause a journey: nobody in it moves on, and nothing is sent."""
    from upnext.operations import controls  # noqa: PLC0415

    controls.pause_journey(project_here(), journey)
    told = f"paused: nobody in {journey} goes on until `upnext journeys resume {journey}`"
    tell({"paused": journey}, as_json, told)


@journeys.command()
@click.argument("journey", shell_complete=JOURNEYS)
@JSON
def resume(journey: str, as_json: bool) -> None:
    """Resume a journey; every later step moves back by the length of the pause."""
    from upnext.operations import controls  # noqa: PLC0415

    entries = controls.resume_journey(project_here(), journey)
    told = f"resumed: {entries:,} users go on where they were"
    tell({"resumed": journey, "users": entries}, as_json, told)


@commands.group(cls=Group)
def experiences() -> None:
    """Start and stop experiences, and learn which copy is for whom."""


@experiences.command("start")
@click.argument("experience", shell_complete=EXPERIENCES)
@JSON
def start_experience(experience: str, as_json: bool) -> None:
    """Start an experience: members of its segment are assigned an arm, and see what it shows."""
    from upnext import switches  # noqa: PLC0415
    from upnext.clock import utc_now  # noqa: PLC0415
    from upnext.operations import controls  # noqa: PLC0415

    project = project_here()
    controls.start(project, "experience", experience, by=switches.this_user())
    _let_the_ui_see()
    starts_at = project.experiences[experience].starts_at
    since = "now" if starts_at is None or starts_at <= utc_now() else f"{starts_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    told = f"started: {experience} is shown from {since} on; `upnext experiences stop {experience}` ends it"
    tell({"started": experience}, as_json, told)


@experiences.command("learn")
@click.argument("experience", shell_complete=EXPERIENCES)
@JSON
def learn_experience(experience: str, as_json: bool) -> None:
    """Propose which copy of an experience to show to whom, from its results so far, in a file to review."""
    from upnext.operations import experiments  # noqa: PLC0415

    sentence, path = experiments.learn_experience(project_here(), experience)
    rules = f"\n{path} has the rules. Nothing follows them until you have read them and set `state: live`."
    file = None if path is None else f"{path}"
    tell({"found": sentence, "file": file}, as_json, sentence + (rules if path is not None else ""))


@experiences.command("stop")
@click.argument("experience", shell_complete=EXPERIENCES)
@JSON
def stop_experience(experience: str, as_json: bool) -> None:
    """Stop an experience: nobody sees it; assignments and results stay."""
    from upnext import switches  # noqa: PLC0415
    from upnext.operations import controls  # noqa: PLC0415

    controls.stop(project_here(), "experience", experience, by=switches.this_user())
    tell({"stopped": experience}, as_json, f"stopped: {experience} is shown to nobody")


@commands.command("plan")
@click.argument("name")
@JSON
def plan_experiment(name: str, as_json: bool) -> None:
    """Show how long a journey, a broadcast or an experience will take until its results say what to do."""
    from upnext.analytics.results import read_results  # noqa: PLC0415
    from upnext.analytics.text import plan_in_words  # noqa: PLC0415
    from upnext.operations import experiments  # noqa: PLC0415

    project = project_here()
    found = asdict(experiments.plan_experiment(project, name))
    if as_json:
        print(json.dumps(found))
        return
    print(plan_in_words(name, found))
    for row in read_results(project.engine):
        if row["experiment"] == name:
            print(f"It is at work, and its results say: {row['decision']} ({row['arm']}; see `upnext results`).")


def _let_the_ui_see() -> None:
    """Let a UI that runs in this home read what is declared: what was started may be newer than it is."""
    from upnext.dev import reload, running_on  # noqa: PLC0415

    port = running_on(Settings.from_environment())
    if port is not None and not reload(port):
        warn(f"the UI on http://127.0.0.1:{port} does not answer: reload its code location, Deployment, Reload")
