"""Commands for the warehouse: its roles, its copies, its address, its documentation."""

import shlex
import sys
from dataclasses import asdict

import click

from upnext.cli.content import project_here
from upnext.cli.group import commands
from upnext.cli.output import JSON, PORT, show, tell
from upnext.errors import UpnextError
from upnext.settings import Settings


@commands.command()
@click.option("--prefix", default="upnext_", show_default=True, help="How the names of the roles begin.")
@click.option("--sql", is_flag=True, help="Print the statements, and change nothing.")
@JSON
def roles(prefix: str, sql: bool, as_json: bool) -> None:
    """Make roles of Postgres with few rights: collector, edge, sender, operator, analyst, reader."""
    from upnext.warehouse import roles  # noqa: PLC0415
    from upnext.warehouse.engine import connect  # noqa: PLC0415

    engine = connect(Settings.from_environment())
    if sql:
        text = ";\n".join(roles.statements(prefix, **roles.known(engine))) + ";"
        tell({"sql": text}, as_json, text)
        return
    made = roles.make(engine, prefix)
    told = [f"{name}: {role.purpose}" for name, role in zip(made, roles.ROLES.values(), strict=True)]
    tell({"roles": made}, as_json, "\n".join(told))


@commands.command()
@click.option("--sent-until", help="When the other one stopped sending (ISO 8601 with a zone); default: now.")
@JSON
def adopt(sent_until: str | None, as_json: bool) -> None:
    """Let a warehouse that was restored from a backup send, in the place of the one it is a copy of."""
    from upnext import clock, loop  # noqa: PLC0415
    from upnext.origin import is_a_copy  # noqa: PLC0415
    from upnext.ticks import instants  # noqa: PLC0415

    now = clock.utc_now()
    until = now if sent_until is None else instants.parse_instant(sent_until, option="--sent-until")
    instants.check_explicit(until, last=None, now=now)
    project = project_here()
    with project.engine.connect() as connection:
        if not is_a_copy(connection):
            raise UpnextError("this warehouse is no copy of another one; there is nothing to adopt")
    done = loop.adopt_copy(project, sent_until=until, now=now)
    show(asdict(done), as_json, title="Adopted; left unsent")


@commands.command()
@JSON
def url(as_json: bool) -> None:
    """Print the URL of the warehouse; start the embedded server if it does not run."""
    from upnext.warehouse.engine import database_url  # noqa: PLC0415

    found = database_url(Settings.from_environment()).render_as_string(hide_password=False)
    tell({"url": found}, as_json, found)


@commands.command()
@JSON
def env(as_json: bool) -> None:
    """Print the variables that dbt and psql need, for a shell: eval "$(upnext env)"."""
    from upnext import dbt  # noqa: PLC0415
    from upnext.warehouse.engine import database_url  # noqa: PLC0415

    settings = Settings.from_environment()
    found = dbt.shell_environment(settings, database_url(settings))
    tell(found, as_json, "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items()))


@commands.command()
@click.option("--port", default=8080, show_default=True, type=PORT, help="Of the pages.")
@click.option("--no-serve", is_flag=True, help="Only write the pages, and say where they lie.")
def docs(port: int, no_serve: bool) -> None:
    """Write dbt's documentation of all models, and serve it on 127.0.0.1."""
    from upnext import dbt  # noqa: PLC0415

    project = project_here()
    folder = dbt.write_docs(project.settings, project.engine.url)
    print(f"written: {folder / 'static_index.html'}")
    if not no_serve:
        sys.exit(dbt.serve_docs(project.settings, project.engine.url, port=port))


@commands.command()
@JSON
def upgrade(as_json: bool) -> None:
    """Upgrade a warehouse of an earlier release, once; make a backup of it first."""
    from upnext.warehouse import engine  # noqa: PLC0415

    is_upgraded = engine.upgrade(Settings.from_environment())
    told = "upgraded: the next tick brings dbt's tables along" if is_upgraded else "up to date: nothing to upgrade"
    tell({"upgraded": is_upgraded}, as_json, told)


@commands.command()
@click.option("--yes", is_flag=True, help="Also while the UI runs, without asking.")
@JSON
def down(yes: bool, as_json: bool) -> None:
    """Stop the embedded Postgres."""
    from upnext.dev import running_on  # noqa: PLC0415
    from upnext.warehouse.engine import embedded_server  # noqa: PLC0415

    settings = Settings.from_environment()
    port = running_on(settings)
    if port is not None and not yes:
        told = f"Upnext runs in this home, on http://127.0.0.1:{port}, and would lose its database"
        if not sys.stdin.isatty():
            raise UpnextError(f"{told}; end it first (Ctrl-C, or kill), or use upnext down --yes")
        click.confirm(f"{told}. Stop it all the same?", abort=True)
    is_stopped = embedded_server(settings).stop()
    tell({"stopped": is_stopped}, as_json, "stopped" if is_stopped else "not running")
