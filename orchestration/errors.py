"""Errors that a user can mend: one line that says what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


class UpnextError(Exception):
    """Bad arguments or bad configuration. The command line prints it as one line and exits with status 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as "; did you mean 'login'?", or the known names where none is close."""
    names = sorted(known)
    matches = difflib.get_close_matches(name, names, n=1)
    if matches:
        return f"; did you mean '{matches[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
