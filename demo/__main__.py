"""`make demo`: run the whole loop on Otto, and print what happened."""

import argparse
import sys
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from demo.loop import DAYS, run
from demo.otto import Otto
from demo.report import print_report
from orchestration.errors import UpnextError
from orchestration.settings import Settings
from orchestration.stages import Platform


def main() -> None:
    """Run the demo in Upnext's home; a second run finds its days done and prints the table again."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--users", type=int, default=3200)
    arguments = parser.parse_args()
    # The users of the demo are invented: they stay in the embedded server, and their mail with the local catcher.
    platform = Platform(replace(Settings.from_environment(), database_url=None, smtp_url=None))
    otto = Otto(seed=arguments.seed, users=arguments.users)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Otto's users sign up", total=DAYS)
        run(platform, otto, on_day=lambda day: progress.update(task, advance=1, description=f"{otto.date(day):%d %B}"))
    print_report(platform, Console())
    print(f"Mails are in {platform.settings.maildir}. Next: `make dev` opens the UI; `make down` stops Postgres.")


if __name__ == "__main__":
    try:
        main()
    except UpnextError as error:
        sys.exit(f"demo: {error}")
