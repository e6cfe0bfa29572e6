"""Reads and checks the declared experiences; errors name the file, the line and the nearest match."""

from collections.abc import Collection
from pathlib import Path

import msgspec

from upnext.declarations import check, load, load_folder
from upnext.errors import UpnextError, nearest
from upnext.experiences.definition import (
    Experience,
    Learned,
    Names,
    Slot,
    Slots,
    find_mistakes,
    find_mistakes_of_rules,
)


def load_slots(path: Path) -> dict[str, Slot]:
    """Return the places of the product that can show a call to action, none without a file.

    Raises `UpnextError` with file and line.
    """
    return load(path, Slots).slots if path.exists() else {}


def load_experiences(known: Names, folder: Path, features: Collection[str] = ()) -> dict[str, Experience]:
    """Return the declared experiences by name, with the rules of the folder `policies` beside theirs.

    Raises `UpnextError` with file and line for the first mistake.
    """
    experiences = load_folder(folder, Experience)
    for name, experience in experiences.items():
        check(folder / f"{name}.yml", find_mistakes(name, experience, known))
    policies = folder.parent / "policies"
    for name, learned in load_folder(policies, Learned).items():
        path = policies / f"{name}.yml"
        if name not in experiences:
            raise UpnextError(f"{path}: no experience is called '{name}'{nearest(name, experiences)}")
        check(path, find_mistakes_of_rules(learned, experiences[name], features))
        if learned.state == "live":
            experiences[name] = msgspec.structs.replace(experiences[name], learned=learned)
    return experiences
