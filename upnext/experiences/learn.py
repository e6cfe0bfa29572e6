"""Learning which copy is for whom from what an experience has shown, and the file that proposes it."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sqlalchemy.engine import Engine

from upnext.experiences.learning import FOLDS, Proposal, Rule, Sample, propose
from upnext.experiences.sql import SQL

HEADER = """\
# Proposed by `upnext experiences learn {name}`. Read it, change what you like, and commit it: it acts on users who are
# assigned from then on. The first rule that holds for a user says which copy to show.
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
    return propose(sample), variants


def write(path: Path, name: str, proposal: Proposal, variants: list[str], *, as_of: datetime) -> None:
    """Write a proposal as the file that the experience follows once it is there."""
    if proposal.single is None or proposal.gain is None:
        raise TypeError("only rules that were found are written")
    rules = [_declared(rule, variants) for rule in proposal.rules]
    declared = {
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
        tests = [f"{name} >= {test['at_least']}" for name, test in rule.get("when", {}).items()]
        lines.append(f"    when {' and '.join(tests)} then '{rule['show']}'" if tests else f"    else '{rule['show']}'")
    return [*lines, "end"]


def _declared(rule: Rule, variants: list[str]) -> dict[str, Any]:
    when = {name: {"at_least": _plain(least)} for name, least in rule.at_least.items()}
    return {**({"when": when} if when else {}), "show": variants[rule.arm]}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _plain(value: float) -> float | int:
    return int(value) if value == int(value) else value
