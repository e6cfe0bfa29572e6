"""Secrets that are made once and kept in Upnext's home."""

import os
import resource
import secrets
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from upnext.errors import UpnextError


def keep_private() -> None:
    """Let whatever this process and its children write be their owner's alone: the home holds what people did.

    They leave no core file, which would hold the secrets of the process.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def kept(home: Path, name: str, *, new: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> list[str]:
    """Return the secrets of a file that only its owner reads, a new one where there is no file.

    Raises `UpnextError` for an empty file.
    """
    path = home / name
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        # Written beside and linked: nobody reads half a secret, and of two that make one the first stays.
        with tempfile.NamedTemporaryFile("w", dir=home, prefix=f".{name}-") as file:
            file.write(f"{new()}\n")
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(file.name, path)
    found = path.read_text().split()
    if not found:
        raise UpnextError(f"{path} is empty; put back what it held, or remove the file: what relied on it then fails")
    return found
