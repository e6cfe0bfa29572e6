"""Results for people: a table with the decisions, and sentences. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HEADINGS = (
    "experiment: arm",
    "what to do",
    "lift (always valid)",
    "p (always valid)",
    "control, arm",
    "users",
    "days left",
)
HUGE = 1e4
"""A lift beyond which more digits say nothing: a million per cent."""
# Keeps a number and its sign on one line in a narrow column.
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def table(results: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a line of text per result on the goal, in the order of `HEADINGS`; a missing value is a dash."""
    return [
        (
            f"{row['experiment']}: {row['arm']}",
            row["decision"] if row["reason"] is None else f"{row['decision']} ({row['reason']})",
            _percent(row["lift"]) + _interval(row),
            _p_value(row["p_always_valid"]),
            f"{_share(row['mean_control'])}, {_share(row['mean_arm'])}",
            f"{row['n_control']:,}, {row['n_arm']:,}",
            f"{row['days_left']:,}" if row["days_left"] is not None and row["decision"] == "keep going" else "-",
        )
        for row in results
    ]


def notes(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what to know beside the decisions, a line for each result that has a note."""
    return [f"{row['experiment']}: {row['arm']}: {row['note']}" for row in results if row["note"] is not None]


def programme_sentence(row: Mapping[str, Any]) -> str:
    """Return what the programme was worth, in words, from a row of `analytics.programme_number`."""
    reached = (
        f"Journeys and experiences have reached {row['users_reached']:,} users whose time for the goal is over, and"
        f" left out {row['users_held_out']:,} to compare with."
    )
    if str(row["decision"]).startswith("broken"):
        return f"{reached} These numbers do not match the holdout, so nobody can say what they brought."
    worth = [_more(row, "goals", "many goals", "goals")]
    if row["revenue_metric"] is not None:
        worth.append(_more(row, "revenue", f"much {row['revenue_metric']}", f"of {row['revenue_metric']}"))
    return " ".join([reached, *worth])


def _more(row: Mapping[str, Any], key: str, asked: str, unit: str) -> str:
    value, low, high = (row[name] for name in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return f"Nobody knows yet how {asked} they brought."
    bounds = "too few to tell" if low is None or high is None else f"{low:,.0f} to {high:,.0f}, always valid"
    # Bounds are those of the difference, so a loss has them below zero.
    more = "fewer" if key == "goals" else "less"
    return f"They brought {abs(round(value)):,} {unit} {more if round(value) < 0 else 'more'} ({bounds})."


def plan_in_words(name: str, plan: Mapping[str, Any]) -> str:
    """Return a `Plan` in sentences."""
    known = [f"{plan['members']:,} users could take part now, and {plan['entrants_a_day']:,.1f} a day enter."]
    if plan["baseline"] is not None:
        known.append(f"Of {plan['past_entrants']:,} past entrants, {100 * plan['baseline']:.2f} % reached the goal.")
    least = f"a lift of {100 * plan['minimum_lift']:g} %"
    if plan["days"] is not None:
        days = f"{plan['users']:,} users, which takes about {plan['days']:,} days, decide on {least} (in 4 of 5 cases)."
        known.append(f"{days} The results say so by themselves: look as often as you like.")
    elif plan["users"] is not None:
        known.append(f"{plan['users']:,} users decide on {least}, but {plan['reason']}.")
    else:
        known.append(f"To decide on {least}: {plan['reason']}.")
    return f"{name}: " + "\n".join(known)


def markdown(lines: Sequence[Sequence[str]], headings: Sequence[str] = HEADINGS) -> str:
    """Return lines as a table in Markdown."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["lift_always_low"], row["lift_always_high"]
    if low is None or high is None:
        return ""
    return f" ({round(100 * low):+d} to {round(100 * min(high, HUGE)):+d})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{round(100 * value):+d}{NO_BREAK_SPACE}%"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}{NO_BREAK_SPACE}%"


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if value >= 0.001 else "<0.001"
