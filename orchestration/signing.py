"""The keys that sign links: those of `UPNEXT_SIGNING_KEYS`, or one that is made once and kept in Upnext's home."""

import os
import secrets

from orchestration.settings import Settings


def signing_keys(settings: Settings) -> list[str]:
    """Return the keys, newest first."""
    if settings.signing_keys:
        return list(settings.signing_keys)
    path = settings.home / "signing_keys"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().split()
    except FileNotFoundError:
        settings.home.mkdir(parents=True, exist_ok=True)
        return signing_keys(settings)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    return path.read_text().split()
