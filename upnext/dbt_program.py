"""dbt's own command line with Upnext's patches: what Dagster runs for a tick, as a process of its own."""

import sys
from importlib.metadata import version

from upnext.garbage import collect_seldom


def main() -> None:
    """Run dbt with the arguments of this process."""
    if sys.argv[1:] == ["--version"]:
        # Dagster asks before each run; dbt would take more than a second.
        print(version("dbt-core"))
        return
    collect_seldom()
    from dbt.cli.main import cli  # noqa: PLC0415 - after garbage is collected seldom

    from upnext.dbt_patches import patch_dbt  # noqa: PLC0415

    patch_dbt()
    cli()
