"""How dbt is called: its arguments, its environment, and one invocation in this process."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from assets.events.catalogue import Catalogue, CatalogueFile, find_mistake
from orchestration.declarations import line_of, load
from orchestration.errors import UpnextError
from orchestration.settings import PROJECT, Settings

PROJECT_DIR = PROJECT / "dbt_project"
CATALOGUE = PROJECT_DIR / "models" / "events" / "_catalogue.yml"


def environment(url: URL) -> dict[str, str]:
    """Return the variables that profiles.yml reads, from the warehouse's URL."""
    query = {name: str(value) for name, value in url.query.items()}
    return {
        "UPNEXT_PG_HOST": url.host or query.get("host", "localhost"),
        "UPNEXT_PG_PORT": str(url.port or query.get("port", 5432)),
        "UPNEXT_PG_USER": url.username or query.get("user", "upnext"),
        "DBT_ENV_SECRET_UPNEXT_PG_PASSWORD": url.password or query.get("password", ""),
        "UPNEXT_PG_DATABASE": url.database or "upnext",
        "UPNEXT_PG_SSLMODE": query.get("sslmode", "prefer"),
        "PGTZ": "UTC",
    }


def build_arguments(*, as_of: datetime | None, tick_id: int | None) -> list[str]:
    """Return the arguments of a build at `as_of`; without `tick_id` the membership log is left alone."""
    variables: dict[str, Any] = {}
    if as_of is not None:
        variables["as_of"] = as_of.isoformat()
    if tick_id is not None:
        variables["tick_id"] = tick_id
    return ["build", "--exclude-resource-type", "unit_test", "--vars", json.dumps(variables)]


def global_arguments(settings: Settings) -> list[str]:
    """Return where the project, the profile and dbt's own files are."""
    return [
        "--project-dir", str(PROJECT_DIR),
        "--profiles-dir", str(PROJECT_DIR),
        "--target-path", str(settings.dbt_target),
        "--log-path", str(settings.dbt_target / "logs"),
    ]  # fmt: skip


def segment_names(settings: Settings) -> set[str]:
    """Return the segments that the project declares, one file each."""
    folders = [PROJECT_DIR / "models", *([PROJECT_DIR / settings.models] if settings.models else [])]
    for folder in folders:
        if not folder.is_dir():
            raise UpnextError(f"UPNEXT_MODELS: no folder {folder}; it is relative to {PROJECT_DIR}")
    return {file.stem for folder in folders for file in (folder / "segments").rglob("*.sql")}


def load_catalogue() -> Catalogue:
    """Read the catalogue of events. Raises `UpnextError` with file and line."""
    declared = load(CATALOGUE, CatalogueFile).catalogue
    mistake = find_mistake(declared)
    if mistake is not None:
        name, message = mistake
        line = line_of(CATALOGUE, ["models", 0, "config", "meta", "derived", name])
        raise UpnextError(f"{CATALOGUE}:{line}: derived event '{name}' {message}")
    return declared


def manifest_path(settings: Settings) -> Path:
    """Return dbt's manifest, parsed again where a file of the project is newer."""
    manifest = settings.dbt_target / "manifest.json"
    parsed_at = manifest.stat().st_mtime if manifest.exists() else 0.0
    if any(file.stat().st_mtime > parsed_at for file in PROJECT_DIR.rglob("*") if file.is_file()):
        Dbt(settings).invoke(["parse"])
    return manifest


class Dbt:
    """dbt in this process. Parsing alone needs no warehouse; it is done once, and kept in `manifest`."""

    def __init__(self, settings: Settings, url: URL | None = None, manifest: Any = None) -> None:
        self._settings = settings
        self._environment = environment(url) if url is not None else {}
        if settings.models is not None:
            self._environment["UPNEXT_MODELS"] = settings.models
        self.manifest = manifest

    def invoke(self, arguments: list[str]) -> Any:
        """Run dbt and return its result. Raises `UpnextError` with the first message of what failed."""
        from dbt.cli.main import dbtRunner  # noqa: PLC0415 - two seconds that only a build should pay

        options = [*global_arguments(self._settings), "--quiet", "--log-level", "none", "--log-level-file", "info"]
        with _scoped(self._environment):
            if self.manifest is None:
                # Parsed without variables, so that dbt's own cache holds from tick to tick.
                self.manifest = _result(dbtRunner().invoke(["parse", *options]))
            if arguments == ["parse"]:
                return self.manifest
            return _result(dbtRunner(manifest=self.manifest).invoke([*arguments, *options]))


@contextmanager
def _scoped(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while: dbt reads its profile from them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _result(done: Any) -> Any:
    if not done.success:
        raise UpnextError(f"dbt failed: {_failure(done)}")
    return done.result


def _failure(done: Any) -> str:
    if done.exception is not None:
        return " ".join(str(done.exception).split())
    failed = [node for node in done.result if node.status in ("error", "fail", "runtime error")]
    first = failed[0]
    return f"{first.node.original_file_path}: {' '.join((first.message or '').split())} ({len(failed)} failed in all)"
