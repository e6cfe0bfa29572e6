"""The `upnext` command: one line on standard error and status 2 for what the user can fix."""

import logging
import sys

import click
from click.shell_completion import get_completion_class

from upnext.cli import begin, edge, events, journeys, people, results, segments, warehouse  # noqa: F401 - adds commands
from upnext.cli.group import commands
from upnext.cli.help import with_examples
from upnext.errors import UpnextError, visible, without_values
from upnext.garbage import collect_seldom


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
    # It warns of a COPY that a lost connection ended; the error itself is what we tell.
    logging.getLogger("psycopg").setLevel(logging.ERROR)
    try:
        _run()
    except (KeyboardInterrupt, click.Abort):
        _fail("stopped", 130)


def _run() -> None:
    from psycopg import Error  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    try:
        commands.main(sys.argv[1:] or ["--help"], prog_name="upnext", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        # What a group holds, to whoever names none of its commands.
        print(error.format_message())
        sys.exit(2)
    except (UpnextError, click.ClickException) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        _fail(text, 2)
    except DBAPIError as error:
        _fail(f"the database: {without_values(str(error.orig))}", 1)
    except Error as error:
        _fail(f"the database: {without_values(str(error))}", 1)
    except OSError as error:
        _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 2)


def _fail(text: str, code: int) -> None:
    print("upnext: " + visible(" ".join(text.split())), file=sys.stderr)
    sys.exit(code)
