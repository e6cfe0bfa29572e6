"""What results mean, in sentences, and the terms that the report explains. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from upnext.analytics.text import HUGE
from upnext.report.facts import Subject

UNKNOWN = "-"

RULES = (
    ("ship", "The always-valid p-value, times the number of arms, is below 0.05, and the arm is ahead of control."),
    (
        "stop",
        "The same product is below 0.05 and the arm is behind; or the always-valid interval leaves no lift that is"
        " worth having (`minimum_lift`).",
    ),
    ("keep going", "Neither yet."),
    (
        "broken: sample ratio",
        "The numbers of users in the arms do not match the traffic split, so the other numbers may be wrong.",
    ),
)

GLOSSARY = {
    "always valid": (
        "Holds over all looks together. You can look every hour, and act when it says so. An ordinary interval or"
        " p-value holds for one look that was planned before."
    ),
    "arm": "One of the groups that users are drawn into by chance: control, or a variant.",
    "control": "Users drawn by chance who do not get the call to action or the journey, to compare with.",
    "conversion": "A user who reached the goal within its time.",
    "drift": "Rows that a complete rebuild found different from what ticks had kept. It should be 0.",
    "exposure": "The first time that a user sees the call to action, or enters the journey. Results count from there.",
    "goal": "What an experiment is for: an event within a time after the exposure.",
    "holdout": "The part of a journey's users who get nothing from it, to compare with.",
    "interval": "The range that holds the true value in 95 of 100 cases; an always-valid one at all looks together.",
    "CTA": "A call to action: a banner, a dialog, an offer in the product.",
    "lift": "How much more users of an arm reach the goal than control: +40 % is 14 of 100 instead of 10.",
    "near miss": "A user who meets all conditions of a segment but one.",
    "p-value": "How often chance alone would make a difference at least this large, if there were none.",
    "reject": "A line of events that could not be read. It is kept, with the reason, and can be loaded again.",
    "sample ratio": "Whether each arm was seen by as many users as the traffic split says.",
    "segment": "Users who meet some conditions now. Each entry and exit is kept.",
}


def leaders(results: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the arm with the largest lift among those to ship, of each experiment that has one."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in results:
        if row["metric"] == "goal" and row["decision"] == "ship":
            before = found.get(row["experiment"])
            if before is None or (row["lift"] or 0) > (before["lift"] or 0):
                found[row["experiment"]] = row
    return {experiment: row["arm"] for experiment, row in found.items()}


def action(result: Mapping[str, Any], subject: Subject | None, leader: str | None = None) -> str:
    """Return what to do about a result on the goal; `leader` is the arm of the experiment that is ahead.

    `subject` is None for an experiment that is no longer declared.
    """
    shown = "" if subject is None else _name(result, subject)
    match result["decision"]:
        case _ if subject is None:
            return f"Nothing: {result['experiment']} is no longer declared."
        case "ship" if subject.kind == "experience" and leader not in (None, result["arm"]):
            return f"Show variant {leader} rather than {shown}: both beat control, and {leader} is ahead."
        case "ship":
            return f"{_SHIPS[subject.kind].format(shown)}."
        case "stop":
            return f"{'Take back' if subject.kind == 'rules' else 'Stop'} {shown}: {_why_stop(result)}."
        case "broken: sample ratio":
            return f"Do not use the numbers of {shown}: find out where users of an arm get lost."
        case _:
            return _undecided(result, subject, shown)


def _undecided(result: Mapping[str, Any], subject: Subject, shown: str) -> str:
    if not subject.is_started:
        return f"Nothing now: {result['experiment'].partition('/')[0]} is not started."
    if result["reason"] == "no control group":
        return f"Nothing to decide: {shown} has no control group."
    if subject.kind == "broadcast" and result["mean_arm"] is not None:
        return f"Nothing more comes of {shown}, and the difference is too small to tell."
    return f"Let {shown} run on: {_why_wait(result)}."


def evidence(result: Mapping[str, Any], subject: Subject | None) -> str | None:
    """Return the numbers behind a result on the goal in a sentence; None where there are none."""
    if result["mean_arm"] is None or result["mean_control"] is None:
        return None
    otherwise = "without it"
    if subject is not None and subject.kind == "rules":
        otherwise = _AGAINST[result["experiment"].partition("/")[2]]
    shares = (
        f"{percent(result['mean_arm'])} of {result['n_arm']:,} users reached the goal,"
        f" and {percent(result['mean_control'])} of {result['n_control']:,} {otherwise}"
    )
    if result["lift"] is None:
        return f"{shares}."
    low, high = result["lift_always_low"], result["lift_always_high"]
    bounds = "" if low is None or high is None else f" ({signed(low)} to {signed(high)}, always valid)"
    return f"{shares}: {signed(result['lift'])}{bounds}."


_SHIPS = {
    "experience": "Show {} to everyone in the segment",
    "journey": "Send {} to everyone in the segment",
    "broadcast": "Send the like of {} to everyone in the segment",
    "rules": "Keep {}",
    "programme": "Go on with {}",
}
_AGAINST = {
    "rules_over_single": "with the best single copy for all",
    "rules_over_chance": "with a copy drawn at chance",
}


def _name(result: Mapping[str, Any], subject: Subject) -> str:
    """Return what a result is about, as a sentence names it."""
    match subject.kind:
        case "experience":
            return f"variant {result['arm']} of {result['experiment']}"
        case "rules":
            return f"the rules of {result['experiment'].partition('/')[0]}"
        case "programme":
            return "the programme as a whole"
        case _:
            return str(result["experiment"])


def _why_stop(result: Mapping[str, Any]) -> str:
    behind = result["diff"] is not None and result["diff"] < 0 and (result["diff_always_high"] or 0) < 0
    return "users who get it reach the goal less often" if behind else "it brings no lift that is worth having"


def _why_wait(result: Mapping[str, Any]) -> str:
    if result["diff"] is not None and result["diff_always_low"] is None:
        return "each side needs 25 users who reached the goal, and 25 who did not"
    if result["reason"] is not None:
        return str(result["reason"])
    if result["days_left"] is not None:
        return f"a decision takes about {result['days_left']:,} more days, if the lift is worth having"
    return "nobody can tell yet"


def percent(value: float | None) -> str:
    r"""Return a share as per cent.

    >>> percent(0.123)
    '12.3\xa0%'
    """
    return UNKNOWN if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def signed(value: float | None) -> str:
    r"""Return a lift as per cent with its sign.

    >>> signed(0.42)
    '+42\xa0%'
    """
    if value is None:
        return UNKNOWN
    return f"{'over ' if value > HUGE else ''}{round(100 * min(value, HUGE)):+,d}\N{NO-BREAK SPACE}%"
