"""Reads and checks the declared events and their sources; errors name file, line and nearest match."""

from collections.abc import Mapping
from pathlib import Path

from upnext.declarations import check, load, load_folder
from upnext.errors import UpnextError, nearest
from upnext.events.catalogue import Catalogue, CatalogueFile, find_mistakes
from upnext.events.source import OWN, Source


def load_catalogue(models: Path) -> Catalogue:
    """Read the catalogue of events. Raises `UpnextError` with file and line."""
    path = models / "events" / "_catalogue.yml"
    declared = load(path, CatalogueFile).catalogue
    check(path, find_mistakes(declared))
    return declared


def load_sources(folder: Path) -> dict[str, Source]:
    """Read how files are read, by source. Raises `UpnextError` with file and line."""
    if (folder / f"{OWN}.yml").exists():
        raise UpnextError(f"{folder / OWN}.yml: journeys emit their events as '{OWN}'; choose another name")
    return load_folder(folder, Source)


def known_source(sources: Mapping[str, Source], name: str) -> Source:
    """Return the source of this name. Raises `UpnextError` with the nearest match where none has it."""
    if name not in sources:
        raise UpnextError(f"unknown source '{name}'{nearest(name, sources)}")
    return sources[name]
