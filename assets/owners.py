"""The owners of assets by group, the same as in dbt's groups (dbt_project/engine/_groups.yml), and those declared."""

import re

_SHOWN = re.compile(r"team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+")

DATA = ["data@otto.example"]
ANALYTICS = ["analytics@otto.example"]
GROWTH = ["growth@otto.example"]


def declared(owner: str | None) -> list[str]:
    """Return the owner that a declaration names as Dagster has it: an address, or else a team.

    Empty where it is neither: with such an owner Dagster loads nothing at all.
    """
    shown = owner if owner is None or "@" in owner else f"team:{owner}"
    return [shown] if shown is not None and _SHOWN.fullmatch(shown) else []
