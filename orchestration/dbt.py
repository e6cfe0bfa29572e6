"""How dbt is called: its arguments, its environment, and one invocation in this process."""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from assets.analytics.definition import Metric, MetricsFile
from assets.events.catalogue import Catalogue, CatalogueFile, find_mistake
from assets.features.definition import Feature, FeaturesFile
from assets.features.definition import find_mistake as find_feature_mistake
from assets.segments.definition import find_cycle, references
from assets.segments.definition import find_mistakes as find_segment_mistakes
from orchestration.declarations import NAME, line_of, load
from orchestration.errors import UpnextError, nearest, without_values
from orchestration.reserved import RESERVED_WORDS
from orchestration.settings import PROJECT, Settings

PROJECT_DIR = PROJECT / "dbt_project"
METRICS = PROJECT_DIR / "models" / "analytics" / "_analytics.yml"
CATALOGUE = PROJECT_DIR / "models" / "events" / "_catalogue.yml"
FEATURE_TABLES = ("user_features", "account_features")
NEVER_NEGATIVE = ("count_of", "days_of", "most_in_session", "distinct_users", "members_where")


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


def model_folders(settings: Settings) -> list[Path]:
    """Return where models lie: the project's, and those of one's own."""
    folders = [PROJECT_DIR / "models", *([PROJECT_DIR / settings.models] if settings.models else [])]
    for folder in folders:
        if not folder.is_dir():
            raise UpnextError(f"UPNEXT_MODELS: no folder {folder}; it is relative to {PROJECT_DIR}")
    return folders


def segment_files(settings: Settings) -> dict[str, Path]:
    """Return the segments that the project declares, one file each."""
    return {file.stem: file for folder in model_folders(settings) for file in (folder / "segments").rglob("*.sql")}


def load_features(settings: Settings, catalogue: Catalogue) -> dict[str, dict[str, Feature]]:
    """Read the features of each table of features. Raises `UpnextError` with file, line and nearest match."""
    events = {*catalogue.events, *catalogue.derived}
    files = [file for folder in model_folders(settings) for file in sorted((folder / "features").rglob("*.yml"))]
    loaded = {file: load(file, FeaturesFile) for file in files}
    tables: dict[str, dict[str, Feature]] = {}
    for declared in loaded.values():
        for _, _, model, column, feature in declared.features():
            tables.setdefault(model, {})[column.name] = feature
    for file, declared in loaded.items():
        for nth_model, nth_column, name in declared.unexplained():
            line = line_of(file, ["models", nth_model, "columns", nth_column])
            raise UpnextError(f"{file}:{line}: feature '{name}' has no config.meta, which says what it is made of")
        for nth_model, nth_column, model, column, feature in declared.features():
            mistake = find_feature_mistake(
                column,
                feature,
                is_of_accounts=model == "account_features",
                events=events,
                user_features=tables.get("user_features", {}),
            )
            if mistake is not None:
                line = line_of(file, ["models", nth_model, "columns", nth_column, "config", "meta"])
                raise UpnextError(f"{file}:{line}: feature '{column.name}' {mistake}")
    return tables


def model_names(settings: Settings) -> set[str]:
    """Return the models and seeds of the project, and of one's own: what a segment may read."""
    models = {file.stem for folder in model_folders(settings) for file in folder.rglob("*.sql")}
    return models | {file.stem for file in (PROJECT_DIR / "seeds").rglob("*.csv")}


def check_segments(
    files: Mapping[str, Path], features: Mapping[str, Mapping[str, Feature]], models: Collection[str] = ()
) -> None:
    """Raise `UpnextError` for the first segment that cannot be what its author means, with file and line.

    `models` are others that it may read.
    """
    for name, file in files.items():
        if not re.fullmatch(NAME, name) or name in RESERVED_WORDS:
            raise UpnextError(f"{file}: '{name}' is a word of SQL, or no name; use a-z, 0-9 and _, and another word")
    counts = {name for table in features.values() for name, feature in table.items() if feature.kind in NEVER_NEGATIVE}
    known = {*FEATURE_TABLES, *features, *files, *models}
    texts = {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    for name, text in texts.items():
        for line, mistake in find_segment_mistakes(text, known=known, counts=counts):
            raise UpnextError(f"{files[name]}:{line}: segment '{name}' {mistake}")
    cycle = find_cycle({name: [other for other in references(text) if other in files] for name, text in texts.items()})
    if cycle is not None:
        raise UpnextError(f"{files[cycle[0]]}: segments are built on each other in a circle: {' -> '.join(cycle)}")


def load_catalogue() -> Catalogue:
    """Read the catalogue of events. Raises `UpnextError` with file and line."""
    declared = load(CATALOGUE, CatalogueFile).catalogue
    mistake = find_mistake(declared)
    if mistake is not None:
        name, message = mistake
        line = line_of(CATALOGUE, ["models", 0, "config", "meta", "derived", name])
        raise UpnextError(f"{CATALOGUE}:{line}: derived event '{name}' {message}")
    return declared


def load_metrics(catalogue: Catalogue, path: Path) -> dict[str, Metric]:
    """Read the metrics of all experiments. Raises `UpnextError` with file, line and nearest match."""
    declared = load(path, MetricsFile)
    for keys, mistake in declared.find_mistakes({*catalogue.events, *catalogue.derived}):
        raise UpnextError(f"{path}:{line_of(path, keys)}: {mistake}")
    return declared.metrics


def find_segment(settings: Settings, path_or_name: str) -> Path:
    """Return the file of a segment, by its name or by its path. Raises `UpnextError` with the nearest match."""
    files = segment_files(settings)
    if path_or_name in files:
        return files[path_or_name]
    path = Path(path_or_name)
    if path.suffix == ".sql" and path.is_file():
        return path.resolve()
    raise UpnextError(f"no segment and no .sql file is called '{path_or_name}'{nearest(path_or_name, files)}")


def manifest_path(settings: Settings) -> Path:
    """Return dbt's manifest, parsed again where a file of the project is newer.

    Where a file cannot be parsed the manifest of before serves: the step that builds then tells the mistake.
    """
    manifest = settings.dbt_target / "manifest.json"
    parsed_at = manifest.stat().st_mtime if manifest.exists() else 0.0
    if any(file.stat().st_mtime > parsed_at for file in PROJECT_DIR.rglob("*") if file.is_file()):
        try:
            Dbt(settings).invoke(["parse"])
        except UpnextError:
            if not manifest.exists():
                raise
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

        from orchestration.dbt_repeats import repeat_cheaply  # noqa: PLC0415

        repeat_cheaply()
        options = [*global_arguments(self._settings), "--quiet", "--log-level", "none", "--log-level-file", "info"]
        with _scoped(self._environment):
            if self.manifest is None:
                # Parsed without variables, so that dbt's own cache holds from tick to tick.
                self.manifest = _result(dbtRunner().invoke(["parse", *options]), None)
            if arguments == ["parse"]:
                return self.manifest
            # Neither its reports nor its list of all relations are needed: a third of a small tick.
            lean = ["--no-write-json", "--no-populate-cache"]
            return _result(dbtRunner(manifest=self.manifest).invoke([*arguments, *options, *lean]), self.manifest)

    def compile(self, sql: str) -> str:
        """Return a SELECT with its references replaced by the names of tables."""
        code: str = self.invoke(["compile", "--inline", sql]).results[0].node.compiled_code
        return code


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


def _result(done: Any, manifest: Any) -> Any:
    if not done.success:
        raise UpnextError(f"dbt failed: {_failure(done, manifest)}")
    return done.result


def _failure(done: Any, manifest: Any) -> str:
    if done.exception is not None:
        return " ".join(str(done.exception).split())
    failed = [node for node in done.result if node.status in ("error", "fail", "runtime error")]
    first = failed[0]
    message = in_one_line(first.message or "", columns=_columns_read_by(first.node, manifest))
    return f"{first.node.original_file_path}: {message} ({len(failed)} failed in all)"


def in_one_line(message: str, *, columns: Collection[str]) -> str:
    """Return what dbt says of a node that failed; of the server's word the first line, without values of the data."""
    head, _, word = message.strip().partition("\n")
    if head.startswith("Database Error") and word:
        message = f"{head} {without_values(word)}"
    return with_nearest(" ".join(message.split()), columns=columns)


def with_nearest(message: str, *, columns: Collection[str]) -> str:
    """Return Postgres's word of a column that does not exist with the nearest match."""
    missing = re.search(r'column "?(?:\w+\.)?(\w+)"? does not exist', message)
    return f"column '{missing[1]}' does not exist{nearest(missing[1], columns)}" if missing else message


def _columns_read_by(node: Any, manifest: Any) -> set[str]:
    names = node.depends_on.nodes if manifest is not None and hasattr(node, "depends_on") else []
    return {column for name in names if name in manifest.nodes for column in manifest.nodes[name].columns}
