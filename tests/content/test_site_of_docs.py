"""The documentation as a site: it builds without a network, its links lead somewhere, and its commands exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from demo.reference import pages
from upnext.cli.group import commands
from upnext.cli.help import commands_of
from upnext.settings import PROJECT, VARIABLES
from upnext.warehouse.columns import columns

COMMANDS = dict(commands_of(commands))
GUIDES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]


def test_it_builds_and_each_link_leads_somewhere(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).parent / "mkdocs"
    # A proxy that is none: whatever asks for something elsewhere fails.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "https_proxy": "http://127.0.0.1:1"}
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", tmp_path], cwd=PROJECT, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "reference" / "tables.html").is_file()
    for page in tmp_path.rglob("*.html"):
        text = page.read_text()
        assert re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//[^"]*"', text) == [], page


def test_the_references_hold_all_there_is() -> None:
    made = pages()
    assert [path for path in COMMANDS if f"### upnext {path}\n" not in made["commands"]] == []
    assert [name for name in VARIABLES if f"`{name}`" not in made["settings"]] == []
    assert [table for table in columns() if f"## {table}\n" not in made["tables"]] == []
    for key in (
        "`holdout`",
        "`reentry`",
        "`surfaces`",
        "`count_of`",
        "`control`",
        "`exclusive_group`",
        "`global_holdout`",
    ):
        assert key in made["files"], key


def typed() -> list[tuple[str, str]]:
    """The commands of all guides, one a line, with the guide."""
    found = []
    for guide in GUIDES:
        for code in re.findall(r"```console\n(.*?)```", guide.read_text(), re.DOTALL):
            lines = re.sub(r"\\\n", " ", code).splitlines()
            found += [(guide.name, line.strip()[2:]) for line in lines if line.strip().startswith("$ ")]
    return found


@pytest.mark.parametrize(("guide", "line"), [one for one in typed() if re.search(r"\bupnext [a-z]", one[1])])
def test_each_command_of_a_guide_is_one(guide: str, line: str) -> None:
    for text in re.findall(r"(?:^|\(|/)upnext ([a-z][^\"|;)]*)", line.partition(" #")[0]):
        words = shlex.split(text)
        path = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
        assert path in COMMANDS, f"{guide}: {line}"
        COMMANDS[path].make_context(path, words[len(path.split()) :])
