"""A small content to begin with."""

import shutil
from pathlib import Path

from upnext.errors import UpnextError

STARTER = Path(__file__).parents[1] / "starter"


def new_content(folder: Path) -> None:
    """Write a small content to begin with. Raises `UpnextError` where the folder holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UpnextError(f"{folder} is not empty; name a new folder")
    shutil.copytree(STARTER, folder, dirs_exist_ok=True)
