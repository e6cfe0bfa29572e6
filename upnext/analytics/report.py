"""Results for people: a table with the decisions, and a picture of lifts over time. Pure."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

INK, LINE, BAND = "#1f2937", "#3d4bd6", "#c7cbf5"
HEADINGS = ("experiment: arm", "what to do", "lift (95 %)", "p", "control, arm", "users", "days left")
COLUMNS = 3
# Keeps a number and its sign on one line in a narrow column.
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"


def table(results: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return a line of text per result on the goal, in the order of `HEADINGS`; a missing value is a dash."""
    return [
        (
            f"{row['experiment']}: {row['arm']}",
            row["decision"] if row["reason"] is None else f"{row['decision']} ({row['reason']})",
            _percent(row["lift"]) + _interval(row),
            _p_value(row["p_adjusted"]),
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
    worth = [_more(row, "goals", "many goals", "goals")]
    if row["revenue_metric"] is not None:
        worth.append(_more(row, "revenue", f"much {row['revenue_metric']}", f"of {row['revenue_metric']}"))
    return " ".join([reached, *worth])


def _more(row: Mapping[str, Any], key: str, asked: str, unit: str) -> str:
    value, low, high = (row[name] for name in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return f"Nobody knows yet how {asked} they brought."
    bounds = "too few to tell" if low is None or high is None else f"{low:,.0f} to {high:,.0f}, always valid"
    return f"They brought {value:,.0f} {unit} more ({bounds})."


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


def lifts_over_time(results: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a PNG: for each experiment and arm the lift at each look, with its interval."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    series: dict[str, list[Mapping[str, Any]]] = {}
    for row in results:
        if row["lift_low"] is not None and row["lift_high"] is not None:
            series.setdefault(f"{row['experiment']}, {row['arm']}", []).append(row)
    lines = max(1, -(-len(series) // COLUMNS))
    figure = Figure(figsize=(4 * COLUMNS, 2.4 * lines), layout="constrained")
    for place, (name, rows) in enumerate(sorted(series.items()), start=1):
        axes = figure.add_subplot(lines, COLUMNS, place)
        at = [row["as_of"] for row in rows]
        low, lift, high = ([100 * row[end] for row in rows] for end in ("lift_low", "lift", "lift_high"))
        axes.fill_between(at, low, high, color=BAND, linewidth=0)
        axes.plot(at, lift, color=LINE, linewidth=2, marker="o" if len(rows) == 1 else None)
        axes.axhline(0, color=INK, linewidth=1)
        # The first looks have very wide intervals, which would leave no room for the rest.
        axes.set_ylim(max(-100, min(low[-1], -20) * 1.6), max(high[-1], 20) * 1.6)
        axes.set_title(name, fontsize=10, loc="left", color=INK)
        axes.set_ylabel("lift, %", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        locator = AutoDateLocator(maxticks=5)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=80)
    return picture.getvalue()


def _interval(row: Mapping[str, Any]) -> str:
    if row["lift_low"] is None or row["lift_high"] is None:
        return ""
    return f" ({round(100 * row['lift_low']):+d} to {round(100 * row['lift_high']):+d})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{round(100 * value):+d}{NO_BREAK_SPACE}%"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}{NO_BREAK_SPACE}%"


def _p_value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if value >= 0.001 else "<0.001"
