"""The group of all commands.

A command imports what is heavy when it runs: the help and the shell's completion answer at once.
"""

import click

from upnext.cli.help import Commands
from upnext.kept import keep_private

# They write into the content, which colleagues share.
_SHARED = {"init", "experiences"}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.pass_context
def commands(context: click.Context) -> None:
    """Upnext: behavioural segments, journeys, calls to action and honest lift, in your own Postgres."""
    if context.invoked_subcommand not in _SHARED:
        keep_private()
