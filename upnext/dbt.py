"""How dbt is called: its arguments, its environment, and one invocation in this process."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url

from upnext.errors import UpnextError, nearest, without_values
from upnext.settings import PROJECT, Settings
from upnext.warehouse.engine import SESSION

PROJECT_DIR = PROJECT / "dbt_project"


# dbt reads the profile to parse, too, and connects to nothing then.
_NOWHERE = make_url("postgresql://nobody@localhost/nowhere")


def environment(settings: Settings, url: URL) -> dict[str, str]:
    """Return the variables by which dbt finds the warehouse, and the models that people edit."""
    query = {name: str(value) for name, value in url.query.items()}
    return {
        "UPNEXT_PG_HOST": url.host or query.get("host", "localhost"),
        "UPNEXT_PG_PORT": str(url.port or query.get("port", 5432)),
        "UPNEXT_PG_USER": url.username or query.get("user", "upnext"),
        "DBT_ENV_SECRET_UPNEXT_PG_PASSWORD": url.password or query.get("password", ""),
        "UPNEXT_PG_DATABASE": url.database or "upnext",
        "UPNEXT_PG_SSLMODE": query.get("sslmode", "prefer"),
        "UPNEXT_DBT_THREADS": os.environ.get("UPNEXT_DBT_THREADS", "2"),
        # dbt takes relative paths of models alone.
        "UPNEXT_DBT_MODELS": _relative_models(settings),
        "PGOPTIONS": SESSION,
    }


def shell_environment(settings: Settings, url: URL) -> dict[str, str]:
    """Return what dbt and psql need when they are called by hand, from any folder."""
    found = environment(settings, url)
    return {
        **found,
        "DBT_PROJECT_DIR": str(PROJECT_DIR),
        "DBT_PROFILES_DIR": str(PROJECT_DIR),
        "DBT_TARGET_PATH": str(settings.dbt_target / "by_hand"),
        "DBT_LOG_PATH": str(settings.dbt_target / "logs"),
        "PGHOST": found["UPNEXT_PG_HOST"],
        "PGPORT": found["UPNEXT_PG_PORT"],
        "PGUSER": found["UPNEXT_PG_USER"],
        "PGPASSWORD": found["DBT_ENV_SECRET_UPNEXT_PG_PASSWORD"],
        "PGDATABASE": found["UPNEXT_PG_DATABASE"],
        "PGSSLMODE": found["UPNEXT_PG_SSLMODE"],
    }


ANALYTICS = "upnext.analytics"
"""All models of analytics, by dbt's method `fqn`."""


def build_arguments(
    *, as_of: datetime | None, tick_id: int | None, row_local: Collection[str] = (), left_out: Collection[str] = ()
) -> list[str]:
    """Return the arguments of a build at `as_of`; without `tick_id` it does not write the membership log.

    `row_local` are the segments evaluated for changed users alone; any other is evaluated for all users. `left_out` are
    those whose model is not run; its tests are.
    """
    variables: dict[str, Any] = {}
    if as_of is not None:
        variables["as_of"] = as_of.isoformat()
    if tick_id is not None:
        variables["tick_id"] = tick_id
    if row_local:
        variables["row_local"] = sorted(row_local)
    arguments = ["build", "--exclude-resource-type", "unit_test", "--vars", json.dumps(variables)]
    if left_out:
        arguments += ["--indirect-selection", "empty", "--exclude", " ".join(sorted(left_out))]
    return arguments


def global_arguments(settings: Settings) -> list[str]:
    """Return where the project, the profile and dbt's own files are."""
    return [
        "--project-dir", str(PROJECT_DIR),
        "--profiles-dir", str(PROJECT_DIR),
        "--target-path", str(settings.dbt_target),
        "--log-path", str(settings.dbt_target / "logs"),
    ]  # fmt: skip


def engine_models() -> Path:
    """Return the folder of the engine's models, which every company shares."""
    return PROJECT_DIR / "engine"


def own_models(settings: Settings) -> Path:
    """Return the folder of the models that people edit: events, features, segments and metrics."""
    return settings.content / "models" if settings.content else PROJECT_DIR / "models"


def shown_path(settings: Settings, path: str) -> str:
    """Return the path that people know a file by: dbt names those of their content relative to its own project."""
    return path.replace(_relative_models(settings), "models", 1)


def _relative_models(settings: Settings) -> str:
    return os.path.relpath(own_models(settings), PROJECT_DIR)


def model_folders(settings: Settings) -> set[str]:
    """Return the names of all folders of models."""
    roots = (engine_models(), own_models(settings))
    return {folder.name for root in roots for folder in (root, *root.rglob("*")) if folder.is_dir()}


def model_names(settings: Settings) -> set[str]:
    """Return all models and seeds: what a segment may read."""
    models = {file.stem for folder in (engine_models(), own_models(settings)) for file in folder.rglob("*.sql")}
    return models | {file.stem for file in (PROJECT_DIR / "seeds").rglob("*.csv")}


def other_models(settings: Settings) -> set[str]:
    """Return the models of the engine and of the content, but for segments."""
    segments = own_models(settings) / "segments"
    files = [file for folder in (engine_models(), own_models(settings)) for file in folder.rglob("*.sql")]
    return {file.stem for file in files if segments not in file.parents}


def manifest_path(settings: Settings) -> Path:
    """Return dbt's manifest, parsed again where a file of the project is newer.

    If a file cannot be parsed, the previous manifest serves; the build step then reports the mistake.
    """
    manifest = settings.dbt_target / "manifest.json"
    parsed_at = manifest.stat().st_mtime if manifest.exists() else 0.0
    files = [file for folder in (PROJECT_DIR, own_models(settings)) for file in folder.rglob("*") if file.is_file()]
    if any(file.stat().st_mtime > parsed_at for file in files):
        try:
            Dbt(settings).invoke(["parse"])
        except UpnextError:
            if not manifest.exists():
                raise
    return manifest


def write_docs(settings: Settings, url: URL) -> Path:
    """Let dbt write its documentation, and return the folder. Raises `UpnextError` where it cannot."""
    target = settings.dbt_target / "docs"
    command = [_program(), "docs", "generate", "--static", *global_arguments(settings), "--target-path", str(target)]
    done = subprocess.run(
        command, env={**os.environ, **environment(settings, url)}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise UpnextError(f"dbt docs: {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr}")
    return target


def serve_docs(settings: Settings, url: URL, *, port: int) -> int:
    """Serve dbt's documentation on loopback until it is ended, and return dbt's status."""
    command = [_program(), "docs", "serve", "--host", "127.0.0.1", "--port", str(port), "--no-browser"]
    paths = [*global_arguments(settings), "--target-path", str(settings.dbt_target / "docs")]
    return subprocess.run([*command, *paths], env={**os.environ, **environment(settings, url)}, check=False).returncode


def _program() -> str:
    return str(Path(sys.executable).parent / "dbt")


class Dbt:
    """dbt in this process. Parsing alone needs no warehouse; it is done once, and kept in `manifest`."""

    def __init__(self, settings: Settings, url: URL | None = None, manifest: Any = None) -> None:
        self._settings = settings
        self._environment = environment(settings, url or _NOWHERE)
        self.manifest = manifest

    def invoke(self, arguments: list[str]) -> Any:
        """Run dbt and return its result. Raises `UpnextError` with the first message of what failed."""
        from dbt.cli.main import dbtRunner  # noqa: PLC0415 - two seconds that only a build should pay

        from upnext.dbt_patches import patch_dbt  # noqa: PLC0415

        patch_dbt()
        options = [*global_arguments(self._settings), "--quiet", "--log-level", "none", "--log-level-file", "info"]
        with _scoped(self._environment):
            if self.manifest is None:
                # Parsed without variables, so that dbt's own cache holds from tick to tick.
                files = ["--write-json" if arguments == ["parse"] else "--no-write-json"]
                self.manifest = self._result(dbtRunner().invoke(["parse", *options, *files]))
            if arguments == ["parse"]:
                return self.manifest
            # Upnext needs neither dbt's reports nor its list of all relations, which take a third of a small tick.
            lean = ["--no-write-json", "--no-populate-cache"]
            return self._result(dbtRunner(manifest=self.manifest).invoke([*arguments, *options, *lean]))

    def compile(self, sql: str, variables: Mapping[str, str]) -> str:
        """Return a SELECT with its references replaced by the names of tables."""
        arguments = ["compile", "--inline", sql, "--vars", json.dumps(variables)]
        code: str = self.invoke(arguments).results[0].node.compiled_code
        return code

    def _result(self, done: Any) -> Any:
        if done.exception is not None and not isinstance(done.exception, Exception):
            # Ctrl-C, or Dagster's end of a run.
            raise done.exception
        if not done.success:
            raise UpnextError(f"dbt failed: {self._failure(done)}")
        return done.result

    def _failure(self, done: Any) -> str:
        if done.exception is not None:
            return " ".join(str(done.exception).split())
        failed = [node for node in done.result if node.status in ("error", "fail", "runtime error")]
        first = failed[0]
        message = in_one_line(first.message or "", columns=_columns_read_by(first.node, self.manifest))
        file = shown_path(self._settings, first.node.original_file_path)
        return f"{file}: {message} ({len(failed)} failed in all)"


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


def in_one_line(message: str, *, columns: Collection[str]) -> str:
    """Return dbt's message about a failed node; of the server's error the first line, without values of the data."""
    head, _, word = message.strip().partition("\n")
    if head.startswith("Database Error") and word:
        # The head names the model and its file, and whoever shows the message names them already.
        message = without_values(word)
    return with_nearest(" ".join(message.split()), columns=columns)


def with_nearest(message: str, *, columns: Collection[str]) -> str:
    """Return Postgres's error about an unknown column with the nearest match."""
    missing = re.search(r'column "?(?:\w+\.)?(\w+)"? does not exist', message)
    return f"column '{missing[1]}' does not exist{nearest(missing[1], columns)}" if missing else message


def _columns_read_by(node: Any, manifest: Any) -> set[str]:
    names = node.depends_on.nodes if manifest is not None and hasattr(node, "depends_on") else []
    return {column for name in names if name in manifest.nodes for column in manifest.nodes[name].columns}
