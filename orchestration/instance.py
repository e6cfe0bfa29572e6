"""The Dagster instance: its home, its storage in the warehouse, and how the UI and the daemon are started."""

import shutil
import sys
from pathlib import Path

from sqlalchemy.engine import URL

from orchestration import dbt
from orchestration.settings import PROJECT, Settings
from orchestration.warehouse import connect, database_url


def storage_url(url: URL) -> str:
    """Return Dagster's own URL. It names psycopg2: with psycopg 3 no run launches (NOTIFY takes no parameter)."""
    scoped = url.set(drivername="postgresql+psycopg2").update_query_dict({"options": "-csearch_path=dagster"})
    return scoped.render_as_string(hide_password=False)


def prepare(settings: Settings) -> dict[str, str]:
    """Make the home, migrate the warehouse, parse dbt, and return the variables that Dagster's processes need."""
    connect(settings).dispose()
    dbt.manifest_path(settings)
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    (settings.landing / "segment").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PROJECT / "dagster.yaml", settings.dagster_home / "dagster.yaml")
    url = database_url(settings)
    return {
        "UPNEXT_HOME": str(settings.home),
        "DAGSTER_HOME": str(settings.dagster_home),
        "UPNEXT_DAGSTER_URL": storage_url(url),
        **dbt.environment(url),
    }


def dev_command(port: int) -> list[str]:
    """Return the command that starts the UI on loopback, and the daemon with it."""
    dagster = str(Path(sys.executable).parent / "dagster")
    return [dagster, "dev", "-w", str(PROJECT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
