"""Reads and checks the declared experiences; errors name the file, the line and the nearest match."""

from pathlib import Path

from upnext.declarations import check, load, load_folder
from upnext.experiences.definition import Experience, Names, Slot, Slots, find_mistakes


def load_slots(path: Path) -> dict[str, Slot]:
    """Return the places of the product that can show a call to action, none without a file.

    Raises `UpnextError` with file and line.
    """
    return load(path, Slots).slots if path.exists() else {}


def load_experiences(known: Names, folder: Path) -> dict[str, Experience]:
    """Return the declared experiences by name. Raises `UpnextError` with file and line for the first mistake."""
    experiences = load_folder(folder, Experience)
    for name, experience in experiences.items():
        check(folder / f"{name}.yml", find_mistakes(name, experience, known))
    return experiences
