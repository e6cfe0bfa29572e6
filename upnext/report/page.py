"""The page of the report: one HTML file that needs nothing else. Pure."""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from upnext.analytics.text import HUGE, programme_sentence
from upnext.report import palette
from upnext.report.charts import charts
from upnext.report.facts import DAYS, Facts, Rows
from upnext.report.words import GLOSSARY, RULES, UNKNOWN, action, evidence, leaders, percent, signed

_FOLDER = Path(__file__).parent / "template"
PERIODS = {7: "7 days", 30: "30 days", 90: "90 days", DAYS: "year"}
FIRST_PERIOD = 30
MOST_LINES = 8
"""Segments in the chart of sizes while none is chosen: as many as there are colours."""
_SPARK_DAYS, _SPARK_WIDTH, _SPARK_HEIGHT = 60, 120, 26


def render(facts: Facts, *, bundle: str, slots_css: str) -> str:
    """Return the page. `bundle` is Vega's JavaScript, `slots_css` how calls to action look in their slots."""
    scripts = [bundle, _text("report.js")]
    page: str = _template().render(
        facts=facts,
        css=Markup(palette.css() + _text("report.css")),  # noqa: S704 - our own file
        scripts=[Markup(script.replace("</script", r"<\/script")) for script in scripts],  # noqa: S704 - a library's, and ours
        hashes=[_hash(script.replace("</script", r"<\/script")) for script in scripts],
        slots_css=Markup(slots_css),  # noqa: S704 - our own file
        data=_json(data(facts)),
        charts=_json(charts()),
        periods=PERIODS,
        first_period=FIRST_PERIOD,
        glossary=GLOSSARY,
        rules=RULES,
        programme=programme_sentence(facts.programme) if facts.programme is not None else None,
        goals=[row for row in facts.rows("results") if row["metric"] == "goal"],
        **_shown(facts),
    )
    return page


def data(facts: Facts) -> dict[str, Any]:
    """Return the rows that charts and sums are made of, by days since 1970."""
    members: dict[str, list[list[int]]] = defaultdict(list)
    for row in facts.rows("segment_days"):
        members[row["segment"]].append([_number(row["day"]), row["members"], row["entered"], row["exited"]])
    journeys: dict[str, dict[str, list[list[int]]]] = defaultdict(lambda: defaultdict(list))
    for row in facts.rows("entry_days"):
        journeys[row["journey"]]["entered"].append([_number(row["day"]), row["entries"]])
    for row in facts.rows("message_days"):
        journeys[row["journey"]][f"sent: {row['step']}"].append([_number(row["day"]), row["messages"]])
    lifts: dict[str, dict[str, list[list[float | None]]]] = defaultdict(lambda: defaultdict(list))
    for row in facts.rows("lift_days"):
        values = [_per_cent(row[name]) for name in ("lift", "lift_always_low", "lift_always_high")]
        lifts[row["experiment"]][row["arm"]].append([_number(row["day"]), *values])
    return {
        "today": None if facts.as_of is None else _number(facts.as_of.date()),
        "members": members,
        "largest": [segment["name"] for segment in facts.segments[:MOST_LINES]],
        "journeys": journeys,
        "lifts": lifts,
        "forest": _forest(facts),
        "overlaps": _overlaps(facts.rows("overlaps")),
    }


def _forest(facts: Facts) -> Rows:
    known = [
        row
        for row in facts.rows("results")
        if row["metric"] == "goal" and None not in (row["lift"], row["lift_always_low"], row["lift_always_high"])
    ]
    return [
        {
            "name": f"{row['experiment']}: {row['arm']}",
            "segment": row["segment"],
            "decision": row["decision"],
            "lift": _per_cent(row["lift"]),
            "low": _per_cent(row["lift_always_low"]),
            "high": _per_cent(row["lift_always_high"]),
        }
        for row in sorted(known, key=lambda row: -row["lift"])
    ]


def _overlaps(rows: Rows) -> Rows:
    sizes = {row["segment"]: row["users"] for row in rows if row["segment"] == row["other"]}
    return [
        {**row, "share": row["users"] / sizes[row["segment"]], "label": f"{row['users'] / sizes[row['segment']]:.0%}"}
        for row in rows
        if row["segment"] != row["other"] and sizes.get(row["segment"])
    ]


def _shown(facts: Facts) -> dict[str, Any]:
    """Return what the chapters show, by the name that the template has for it."""
    by = {
        name: _by(facts.rows(name), key)
        for name, key in (
            ("results", "experiment"), ("copies", "experiment"), ("by_segment", "experiment"), ("steps", "journey"),
            ("funnel", "journey"), ("messages", "journey"), ("entries", "journey"),
        )
    }  # fmt: skip
    by["steps"] = {journey: [{**step, **_step(step)} for step in steps] for journey, steps in by["steps"].items()}
    near = _by(facts.near_misses, "segment")
    days = _by(facts.rows("segment_days"), "segment")
    return {
        "by": by,
        "near": near,
        "sparks": {name: _spark(rows) for name, rows in days.items()},
        "subjects": facts.subjects,
        "leaders": leaders(facts.rows("results")),
        "overlaps": _overlaps(facts.rows("overlaps")),
        "revenue": _revenue(facts),
        "mails": _by([{"journey": mail.journey, "mail": mail} for mail in facts.mails], "journey"),
        "sums": sum(segment["members"] for segment in facts.segments),
        "sent": sum(row["messages"] for row in facts.rows("messages") if row["status"] == "sent"),
        "not_sent": {
            journey: [row for row in rows if row["status"] in ("skipped", "failed", "unknown")]
            for journey, rows in by["messages"].items()
        },
    }


def _step(step: Mapping[str, Any]) -> dict[str, str | None]:
    """Return when a step is due and what it says, as far as steps of its kind have that."""
    definition = step["definition"]
    after, wait, length = (definition.get(name) for name in ("after", "wait", "for"))
    timing = f"{after} after the start" if after else f"after {wait}" if wait else f"for {length}" if length else None
    texts = (definition.get(name) for name in ("subject", "copy", "endpoint", "event", "journey"))
    return {"timing": timing, "text": next((text for text in texts if isinstance(text, str)), None)}


def _revenue(facts: Facts) -> dict[str, Any] | None:
    """Return the metric that is money, and its results by experiment and arm; None where none is declared."""
    metric = (facts.programme or {}).get("revenue_metric")
    if metric is None:
        return None
    rows = [row for row in facts.rows("results") if row["metric"] == metric]
    return {"metric": metric, "rows": {(row["experiment"], row["arm"]): row for row in rows}}


def _by(rows: Iterable[Mapping[str, Any]], key: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return dict(found)


def _spark(rows: Rows) -> str:
    """Return the points of a line through the members of the last days, for a picture beside a number."""
    found = [row["members"] for row in rows][-_SPARK_DAYS:]
    most, least = max(found), min(found)
    step = _SPARK_WIDTH / max(1, len(found) - 1)
    height = (_SPARK_HEIGHT - 4) / max(1, most - least)
    return " ".join(
        f"{place * step:.1f},{_SPARK_HEIGHT - 2 - (members - least) * height:.1f}"
        for place, members in enumerate(found)
    )


def _number(day: date) -> int:
    return day.toordinal() - date(1970, 1, 1).toordinal()


def _per_cent(value: float | None) -> float | None:
    return None if value is None else round(100 * max(-HUGE, min(HUGE, value)), 2)


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(value: Any) -> Markup:
    """Return JSON that may stand in a script element: no `<` is in it, so no name can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))  # noqa: S704


@cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "count": lambda value: UNKNOWN if value is None else f"{value:,.0f}",
        "percent": percent,
        "signed": signed,
        "day": lambda value: f"{value:%-d %B %Y}",
        "moment": lambda value: f"{value:%-d %B %Y, %H:%M} UTC",
        "words": lambda value: value.replace("_", " "),
        # A long name may break after each of its words, and nowhere else.
        "breakable": lambda value: Markup(str(escape(value)).replace("_", "_<wbr>")),  # noqa: S704 - escaped
    }
    environment.globals |= {"action": action, "evidence": evidence}
    return environment.get_template("report.html")
