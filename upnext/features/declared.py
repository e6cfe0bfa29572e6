"""Reading what is declared of features, checked: errors name the file, the line and the nearest match."""

from collections.abc import Iterable
from pathlib import Path

from upnext.declarations import line_of, load
from upnext.errors import UpnextError
from upnext.features.definition import Feature, FeaturesFile, find_mistake

TABLES = ("user_features", "account_features")


def load_features(folders: Iterable[Path], events: set[str]) -> dict[str, dict[str, Feature]]:
    """Read the features of each table. Raises `UpnextError` with file, line and nearest match."""
    files = [file for folder in folders for file in sorted((folder / "features").rglob("*.yml"))]
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
            mistake = find_mistake(
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
