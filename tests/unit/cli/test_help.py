"""The help: each command has a section, an example that its options take, and JSON for programs."""

import shlex

import click
import pytest

from upnext.cli.group import commands
from upnext.cli.help import EXAMPLES, SECTIONS, commands_of, completes

COMMANDS = dict(commands_of(commands))
SERVERS = {"completion", "dev", "docs", "edge", "live"}


def test_each_command_has_its_section_and_its_example() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(commands.commands)
    assert EXAMPLES.keys() == COMMANDS.keys()


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_examples_are_what_the_command_takes(path: str) -> None:
    command = COMMANDS[path]
    for example in EXAMPLES[path]:
        typed = shlex.split(example.removeprefix('eval "$(').removeprefix('psql "$(').removesuffix(')"'))
        assert typed[: 1 + len(path.split())] == ["upnext", *path.split()]
        command.make_context(path, typed[1 + len(path.split()) :])
    shown = command.get_help(click.Context(command, info_name=path))
    assert EXAMPLES[path][0] in shown
    assert ("--json" in shown) == (path not in SERVERS), "for programs"


def test_the_help_fits_a_narrow_terminal_and_is_not_cut() -> None:
    shown = commands.get_help(click.Context(commands, info_name="upnext", terminal_width=80))
    assert max(map(len, shown.splitlines())) <= 80
    assert "..." not in shown.replace("ARGS]...", "")


def test_names_are_completed() -> None:
    found = completes("models/segments")(None, None, "")  # type: ignore[arg-type]
    assert found == [] or all(item.value.isidentifier() for item in found)
