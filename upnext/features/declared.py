"""Reads and checks the declared features; errors name the file, the line and the nearest match."""

from collections.abc import Collection, Iterable
from pathlib import Path

from upnext.declarations import Keys, Problem, check, load, unknown
from upnext.errors import UpnextError
from upnext.features.definition import Feature, FeaturesFile, of_each_window

TABLES = ("user_features", "account_features")


def load_features(folders: Iterable[Path], events: set[str], models: Collection[str]) -> dict[str, dict[str, Feature]]:
    """Read the features of each table, a model of dbt. Raises `UpnextError` with file, line and nearest match."""
    paths = [path for folder in folders for path in sorted((folder / "features").rglob("*.y*ml"))]
    for path in paths:
        if path.suffix == ".yaml":
            raise UpnextError(f"{path}: files that declare something end in .yml; rename it")
    loaded = {file: load(file, FeaturesFile) for file in paths}
    tables: dict[str, dict[str, Feature]] = {}
    described: dict[str, Path] = {}
    for file, declared in loaded.items():
        for nth, model in enumerate(declared.models):
            keys: Keys = ["models", nth, "name"]
            check(file, unknown(keys, "table of features", [model.name], models))
            if model.name in described:
                twice = f"'{model.name}' is described in {described[model.name]} too; a table stands in one file"
                check(file, [Problem(keys, twice)])
            described[model.name] = file
            features = tables.setdefault(model.name, {})
            for column in model.columns:
                if column.config.meta is not None:
                    features.update(of_each_window(column.name, column.config.meta))
    for file, declared in loaded.items():
        check(file, declared.find_mistakes(events, tables))
    return {name: features for name, features in tables.items() if features}
