"""The keys that sign links: those of `UPNEXT_SIGNING_KEYS`, or one that is made once and kept in Upnext's home."""

import os
import secrets
import tempfile
from contextlib import suppress

from upnext.errors import UpnextError
from upnext.settings import Settings


def signing_keys(settings: Settings) -> list[str]:
    """Return the keys, newest first. Raises `UpnextError` where the file that holds them is empty."""
    if settings.signing_keys:
        return list(settings.signing_keys)
    path = settings.home / "signing_keys"
    if not path.exists():
        settings.home.mkdir(parents=True, exist_ok=True)
        # Written beside and linked: nobody reads half a key, and of two that make one the first stays.
        with tempfile.NamedTemporaryFile("w", dir=settings.home, prefix=".signing_keys-") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(file.name, path)
    keys = path.read_text().split()
    if not keys:
        raise UpnextError(f"{path} is empty; put the key back, or remove the file: links that it signed then fail")
    return keys
