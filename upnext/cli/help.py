"""The help of the command line: commands by what people want to do, examples, and names that a shell completes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from upnext.settings import PROJECT, Settings

SECTIONS = {
    "Begin": ("dev", "doctor", "check", "init", "status"),
    "Load events and tick": ("ingest", "tick", "replay", "live", "rejected", "replay-rejected", "rebuild"),
    "Segments": ("preview", "members", "release"),
    "Journeys and experiences": ("journeys", "experiences", "plan"),
    "See what worked": ("report", "results", "notebook"),
    "Pages and apps": ("edge", "keys"),
    "People": ("export", "erase", "readmit", "prune"),
    "The warehouse": ("roles", "adopt", "url", "env", "docs", "upgrade", "down"),
    "The shell": ("completion",),
}
EXAMPLES = {
    "adopt": ["upnext adopt", "upnext adopt --sent-until 2026-11-29T10:00:00Z"],
    "check": ["upnext check"],
    "completion": ['eval "$(upnext completion bash)"'],
    "dev": ["upnext dev --port 3001"],
    "docs": ["upnext docs --no-serve"],
    "doctor": ["upnext doctor", "upnext doctor --json"],
    "down": ["upnext down"],
    "edge": ["upnext edge --port 8790 --workers 2"],
    "env": ['eval "$(upnext env)"'],
    "experiences learn": ["upnext experiences learn upgrade_banner"],
    "experiences start": ["upnext experiences start upgrade_banner"],
    "experiences stop": ["upnext experiences stop upgrade_banner"],
    "erase": ["upnext erase u42", "upnext erase ada@customer.example --yes"],
    "export": ["upnext export u42 --out u42.jsonl", "upnext export ada@customer.example --out ada.jsonl"],
    "prune": ["upnext prune", "upnext prune --json"],
    "roles": ["upnext roles", "upnext roles --sql"],
    "ingest": ["upnext ingest events.jsonl.gz", "upnext ingest exports/ --source playlist --json"],
    "init": ["upnext init our-content"],
    "journeys check": ["upnext journeys check"],
    "journeys explain": ["upnext journeys explain u42 encourage_upgrade"],
    "journeys pause": ["upnext journeys pause encourage_upgrade"],
    "journeys preview": ["upnext journeys preview encourage_upgrade --ids"],
    "journeys render": ["upnext journeys render encourage_upgrade --out mails"],
    "journeys resume": ["upnext journeys resume encourage_upgrade"],
    "journeys start": ["upnext journeys start encourage_upgrade"],
    "journeys stop": ["upnext journeys stop encourage_upgrade"],
    "journeys test": ["upnext journeys test encourage_upgrade --to ada@customer.example"],
    "keys add": ["upnext keys add --origin https://otto.example", "upnext keys add --kind server"],
    "keys disable": ["upnext keys disable 3"],
    "keys list": ["upnext keys list"],
    "live": ["upnext live", "upnext live --once"],
    "members": ["upnext members upgrade_curious", "upnext members upgrade_curious --at 2026-11-01T00:00:00Z"],
    "notebook": ["upnext notebook segment_explorer segment=upgrade_curious days=30"],
    "plan": ["upnext plan encourage_upgrade"],
    "preview": ["upnext preview upgrade_curious", "upnext preview draft.sql --ids"],
    "readmit": ["upnext readmit u42 ada@customer.example"],
    "rebuild": ["upnext rebuild"],
    "rejected": ["upnext rejected --source segment"],
    "release": ["upnext release upgrade_curious"],
    "replay": ["upnext replay --from 2026-10-01T00:00:00Z --to 2026-11-01T00:00:00Z --every 1d"],
    "replay-rejected": ["upnext replay-rejected --reason no_event"],
    "report": ["upnext report", "upnext report --no-open"],
    "results": ["upnext results", "upnext results --json"],
    "status": ["upnext status"],
    "tick": ["upnext tick", "upnext tick --as-of 2026-11-01T00:00:00Z --json"],
    "upgrade": ["upnext upgrade"],
    "url": ['psql "$(upnext url)"'],
}


class Group(click.Group):
    """A group whose help lists its commands in whole sentences."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, (command.help or "").split("\n")[0]) for name, command in self.commands.items()])


class Commands(Group):
    """A group whose help lists commands by section, whole sentences, and whose commands show their examples."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        for title, names in SECTIONS.items():
            found = [(name, self.commands[name]) for name in names if name in self.commands]
            with formatter.section(title):
                formatter.write_dl([(name, (command.help or "").split("\n")[0]) for name, command in found])


def with_examples(commands: click.Group) -> None:
    """Give each command its examples, below its options."""
    for path, command in commands_of(commands):
        if examples := EXAMPLES.get(path):
            command.epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)


def commands_of(group: click.Group, path: str = "") -> list[tuple[str, click.Command]]:
    """Return all commands with what a user types for them, such as `journeys start`."""
    found: list[tuple[str, click.Command]] = []
    for name, command in sorted(group.commands.items()):
        here = f"{path} {name}".strip()
        found += commands_of(command, here) if isinstance(command, click.Group) else [(here, command)]
    return found


def completes(*folders: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Return what completes a name from the files of folders of the content, such as `campaigns/journeys`."""

    def names(_context: Any, _parameter: Any, begun: str) -> list[CompletionItem]:
        content: Path = Settings.from_environment().content or PROJECT
        # A content folder has its models at the top, and the project has them in dbt's.
        roots = [content, content / "dbt_project"]
        files = (path for root in roots for folder in folders for path in sorted((root / folder).glob("**/*")))
        stems = {path.stem for path in files if path.suffix in (".yml", ".sql") and not path.stem.startswith("_")}
        return [CompletionItem(name) for name in sorted(stems) if name.startswith(begun)]

    return names
