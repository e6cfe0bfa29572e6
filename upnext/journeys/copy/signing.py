"""The keys that sign links: those of `UPNEXT_SIGNING_KEYS`, or one that is made once and kept in Upnext's home."""

from upnext.kept import kept
from upnext.settings import Settings


def signing_keys(settings: Settings) -> list[str]:
    """Return the keys, newest first. Raises `UpnextError` where the file that holds them is empty."""
    return list(settings.signing_keys) or kept(settings.home, "signing_keys")
