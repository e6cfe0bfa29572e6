"""Learning which copy is for whom from what an experience has shown, and the file that proposes it."""

import math
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import yaml
from sqlalchemy.engine import Engine

from upnext.errors import UpnextError
from upnext.experiences.learning import FOLDS, Proposal, Rule, Sample, propose
from upnext.experiences.sql import SQL

HEADER = """\
# Proposed by `upnext experiences learn {name}`. Read it, change what you like, set `state: live`, and commit it: it
# acts on users who are assigned from then on. The first rule that holds for a user says which copy to show.
#
# {gain}
#
{sql}
"""


def learn(engine: Engine, name: str, variants: list[str]) -> tuple[Proposal, list[str]]:
    """Return what to propose for an experience, and the variants by their numbers."""
    with engine.connect() as connection:
        rows = connection.execute(SQL["sample"], {"experience": name}).all()
    numbers = {variant: number for number, variant in enumerate(variants)}
    rows = [row for row in rows if row.arm in numbers]
    names = sorted({name for row in rows for name, value in row.features.items() if _is_number(value)})
    shares = [[row.weights.get(variant, 0.0) for variant in variants] for row in rows]
    weights = np.array(shares).reshape(len(rows), len(variants))
    with np.errstate(invalid="ignore"):
        chances = weights / weights.sum(axis=1, keepdims=True)
    draws = np.array([row.draw for row in rows])
    features = [[_number(row.features.get(one)) for one in names] for row in rows]
    sample = Sample(
        features=np.array(features).reshape(len(rows), len(names)),
        names=names,
        arms=np.array([numbers[row.arm] for row in rows], dtype=np.int64),
        outcomes=np.array([row.has_reached_goal for row in rows], dtype=float),
        chances=chances,
        is_learned_from=draws < 0.5,
        fold=(draws * 1_000_000).astype(np.int64) % FOLDS,
    )
    truths = {name for name in names if {type(row.features.get(name)) for row in rows} <= {bool, NoneType}}
    return _with_truths(propose(sample), truths), variants


def write(path: Path, name: str, proposal: Proposal, variants: list[str], *, as_of: datetime) -> None:
    """Write a proposal as the file that the experience follows once somebody has set it live.

    Raises `UpnextError` where there is a file already.
    """
    if proposal.single is None or proposal.gain is None:
        raise TypeError("only rules that were found are written")
    if path.exists():
        raise UpnextError(f"{path} has rules already: keep them elsewhere or remove them, then learn again")
    rules = [_declared(rule, variants) for rule in proposal.rules]
    declared = {
        "state": "draft",
        "learned_until": as_of.isoformat(),
        "users": proposal.users,
        "gain": [round(value, 5) for value in (proposal.gain, proposal.gain_low or 0.0, proposal.gain_high or 0.0)],
        "chance": 0.2,
        "single": variants[proposal.single],
        "rules": rules,
    }
    sql = "\n".join(f"# {line}" for line in in_sql(rules))
    header = HEADER.format(name=name, gain=in_words(proposal, variants), sql=sql)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + yaml.safe_dump(declared, sort_keys=False, default_flow_style=None), encoding="utf-8")


def in_words(proposal: Proposal, variants: list[str]) -> str:
    """Return what the rules gain, in a sentence."""
    if proposal.gain is None or proposal.single is None:
        return f"No rules: {proposal.reason}."
    low, gain, high = (100 * (value or 0.0) for value in (proposal.gain_low, proposal.gain, proposal.gain_high))
    return (
        f"{gain:+.1f} points of the goal over '{variants[proposal.single]}' for all ({low:+.1f} to {high:+.1f}, 95 %),"
        f" of {proposal.users:,} users."
    )


def in_sql(rules: list[dict[str, Any]]) -> list[str]:
    """Return rules as an expression of SQL over `features.user_features`."""
    lines = ["case"]
    for rule in rules:
        tests = [
            name if test is True else f"{name} >= {test['at_least']}" for name, test in rule.get("when", {}).items()
        ]
        lines.append(f"    when {' and '.join(tests)} then '{rule['show']}'" if tests else f"    else '{rule['show']}'")
    return [*lines, "end"]


def _declared(rule: Rule, variants: list[str]) -> dict[str, Any]:
    when = {name: True if least is True else {"at_least": _plain(least)} for name, least in rule.at_least.items()}
    return {**({"when": when} if when else {}), "show": variants[rule.arm]}


def _with_truths(proposal: Proposal, truths: set[str]) -> Proposal:
    """Return a proposal whose rules ask whether these features are true; it was learned with 1 for true."""
    rules = (
        replace(rule, at_least={name: True if name in truths else least for name, least in rule.at_least.items()})
        for rule in proposal.rules
    )
    return replace(proposal, rules=tuple(rules))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value
