"""Reads and checks the declared features; errors name the file, the line and the nearest match."""

from collections.abc import Iterable
from pathlib import Path

from upnext.declarations import check, load
from upnext.features.definition import Feature, FeaturesFile, of_each_window

TABLES = ("user_features", "account_features")


def load_features(folders: Iterable[Path], events: set[str]) -> dict[str, dict[str, Feature]]:
    """Read the features of each table. Raises `UpnextError` with file, line and nearest match."""
    files = [file for folder in folders for file in sorted((folder / "features").rglob("*.yml"))]
    loaded = {file: load(file, FeaturesFile) for file in files}
    tables: dict[str, dict[str, Feature]] = {}
    for model in (model for declared in loaded.values() for model in declared.models):
        features = tables.setdefault(model.name, {})
        for column in model.columns:
            if column.config.meta is not None:
                features.update(of_each_window(column.name, column.config.meta))
    for file, declared in loaded.items():
        check(file, declared.find_mistakes(events, tables))
    return {name: features for name, features in tables.items() if features}
