"""Errors that a user can mend: one line that says what is wrong, where, and what to do."""

import difflib
from collections.abc import Iterable


class UpnextError(Exception):
    """Bad arguments or bad configuration. The command line prints it as one line and exits with status 2."""


def visible(text: str) -> str:
    """Return text of others as it can be shown: what could steer a terminal, or turn the line round, is written out.

    >>> print(visible("a" + chr(27) + "[2Jb"))
    a\\x1b[2Jb
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\N{NO-BREAK SPACE}"
        else character.encode("unicode_escape").decode()
        for character in text
    )  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as "; did you mean 'login'?", or the known names where none is close."""
    names = sorted(known)
    matches = difflib.get_close_matches(name, names, n=1)
    if matches:
        return f"; did you mean '{matches[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""
