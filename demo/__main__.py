"""`make demo`: run the whole loop on Otto, and print what happened."""

import argparse
import os
import subprocess
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from demo.loop import end_of, run
from demo.otto import DAYS, Otto
from demo.report import print_report
from upnext.clock import utc_now
from upnext.errors import UpnextError
from upnext.kept import keep_private
from upnext.project import Project
from upnext.settings import Settings
from upnext.ticks.instants import parse_instant


def main() -> None:
    """Run the demo in Upnext's home; a second run finds its days done and prints the table again."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--users", type=int, default=6000)
    parser.add_argument("--end", help="when the demo ends (ISO 8601 with a zone); default: now")
    parser.add_argument("--no-ui", action="store_true", help="leave out the last runs by Dagster, which fill its UI")
    arguments = parser.parse_args()
    keep_private()
    _refuse_what_is_yours(Settings.from_environment())
    # The users of the demo are invented. Their data stays in the embedded server, and their mail in the local catcher.
    os.environ.update(dict.fromkeys(("UPNEXT_DATABASE_URL", "UPNEXT_SMTP_URL"), ""))
    project = Project(Settings.from_environment())
    asked = utc_now() if arguments.end is None else parse_instant(arguments.end, option="--end")
    otto = Otto(seed=arguments.seed, users=arguments.users, end=end_of(project, asked))
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Otto's users sign up", total=DAYS)
        run(project, otto, on_day=lambda day: progress.update(task, advance=1, description=f"{otto.date(day):%d %B}"))
        if not arguments.no_ui:
            _fill_the_ui(project, progress)
    print_report(project, Console())
    print(f"Mails are in {project.settings.maildir}. Next: `make dev` opens the UI; `make down` stops Postgres.")


def _refuse_what_is_yours(settings: Settings) -> None:
    """Raise `UpnextError` where the demo would start journeys of somebody's own, or leave its files in their home."""
    if settings.content is not None:
        raise UpnextError("it shows Otto, the content that ships: unset UPNEXT_CONTENT, or open another terminal")
    if settings.database_url is not None and settings.home.exists() and not (settings.home / "demo").exists():
        raise UpnextError(
            f"UPNEXT_DATABASE_URL names a warehouse of yours, and {settings.home} may be its home: unset both, or set"
            " UPNEXT_HOME to a new folder"
        )


def _fill_the_ui(project: Project, progress: Progress) -> None:
    """Run Dagster's jobs in a separate process, which logs to a file."""
    task = progress.add_task("Dagster's runs", total=None)
    log = project.settings.home / "demo" / "dagster.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "demo.timeline"]
        done = subprocess.run(command, stdout=output, stderr=output, check=False)
    progress.update(task, total=1, completed=1)
    if done.returncode != 0:
        raise UpnextError(f"the runs by Dagster failed; see {log}")


if __name__ == "__main__":
    try:
        main()
    except UpnextError as error:
        sys.exit(f"demo: {error}")
