"""Reading what is declared of experiences, checked: errors name the file, the line and the nearest match."""

from pathlib import Path

from assets.experiences.definition import Experience, Known, Slot, Slots, find_mistakes
from orchestration.declarations import check, load, load_folder

EXPERIENCES = Path(__file__).parent
SLOTS = "slots"


def load_slots(folder: Path = EXPERIENCES) -> dict[str, Slot]:
    """Return the places of the product that can show a call to action. Raises `UpnextError` with file and line."""
    return load(folder / f"{SLOTS}.yml", Slots).slots


def load_experiences(known: Known, folder: Path = EXPERIENCES) -> dict[str, Experience]:
    """Return the declared experiences by name. Raises `UpnextError` with file and line for the first mistake."""
    experiences = load_folder(folder, Experience, besides={SLOTS})
    for name, experience in experiences.items():
        check(folder, name, find_mistakes(name, experience, known))
    return experiences
