"""Errors that a user can fix: one line that says what is wrong, where, and what to do."""

import difflib
import re
from collections.abc import Iterable


class UpnextError(Exception):
    """Bad arguments or bad configuration. The command line prints it as one line and exits with status 2."""


# PostgreSQL's errors about names and syntax quote the query, not the data.
_OF_THE_QUERY = re.compile(
    "does not exist|violates|syntax error at|must appear in|is ambiguous|is of type|already exists|permission denied"
    "|specified more than once"
)


def without_values(message: str) -> str:
    """Return PostgreSQL's first line without the data that it quotes, which may be personal.

    >>> without_values('invalid input syntax for type integer: "+49 170 1234"')
    'invalid input syntax for type integer: "..."'
    >>> without_values('column "logns_30d" does not exist')
    'column "logns_30d" does not exist'
    """
    line = message.strip().split("\n", 1)[0]
    is_of_no_value = line.startswith("connection failed") or _OF_THE_QUERY.search(re.sub('".*"', "", line))
    return line if is_of_no_value else re.sub('".*', '"..."', line)


def visible(text: str) -> str:
    """Return untrusted text in printable form: terminal controls and bidirectional marks are escaped.

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
