"""The charts of the report: each is drawn in the reader's browser from rows that the page holds. Pure.

Colours are custom properties of the page, so that a chart follows light, dark and paper. Names come from rows alone and
never from the text of a chart, since a chart can hold expressions.
"""

from typing import Any

import altair as alt

INK, QUIET, GRID = "var(--ink)", "var(--quiet)", "var(--line)"
ACCENT, BAND, DOWN = "var(--accent)", "var(--band)", "var(--down)"
SERIES = [f"var(--series-{number})" for number in range(1, 9)]
ROWS = "rows"
"""The name of a chart's data, which the page fills in."""

_DAY = alt.X(
    "utcyearmonthdate(day):T",
    title=None,
    axis=alt.Axis(format="%-d %b", labelOverlap="greedy", labelSeparation=12, tickCount=6),
)
_WHEN = alt.Tooltip("utcyearmonthdate(day):T", format="%-d %B %Y", title="day")


def charts() -> dict[str, dict[str, Any]]:
    """Return the charts by name, as Vega-Lite."""
    made = {
        "members": _members(), "flows": _flows(), "overlaps": _overlaps(), "forest": _forest(), "lift": _lift(),
        "journey": _journey(),
    }  # fmt: skip
    return {name: _styled(chart).to_dict() for name, chart in made.items()}


def _members() -> Any:
    """Members by day, a line for each segment; rows of day, segment, members."""
    return _chart(220).mark_line(strokeWidth=2, interpolate="step-after").encode(
        x=_DAY,
        y=alt.Y("members:Q", title="members", axis=alt.Axis(format="~s", tickCount=5)),
        color=_series("segment"),
        tooltip=["segment:N", _WHEN, alt.Tooltip("members:Q", format=",")],
    )  # fmt: skip


def _flows() -> Any:
    """Who entered, upwards, and who left, downwards; rows of day, change, users."""
    return _chart(160).mark_bar().encode(
        x=_DAY,
        y=alt.Y("users:Q", title="entered, left", axis=alt.Axis(format="~s", tickCount=5)),
        color=alt.Color(
            "change:N",
            scale=alt.Scale(domain=["entered", "left"], range=[ACCENT, DOWN]),
            legend=alt.Legend(orient="top", title=None),
        ),
        tooltip=["change:N", _WHEN, alt.Tooltip("shown:Q", format=",", title="users")],
    )  # fmt: skip


def _overlaps() -> Any:
    """Which part of a segment is in another one; rows of segment, other, share, users."""
    place = {
        "x": alt.X("other:N", title="are in", sort=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        "y": alt.Y("segment:N", title="members of", sort=None, axis=alt.Axis(labelLimit=180)),
    }
    cells = _chart(alt.Step(34)).mark_rect().encode(
        **place,
        color=alt.value(ACCENT),
        opacity=alt.Opacity("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.06, 0.75]), legend=None),
        tooltip=["segment:N", "other:N", alt.Tooltip("users:Q", format=","), alt.Tooltip("share:Q", format=".0%")],
    )  # fmt: skip
    return cells + _chart(alt.Step(34)).mark_text(color=INK, fontSize=12).encode(**place, text="label:N")


def _forest() -> Any:
    """The lift of each arm with its interval; rows of name, lift, low, high (per cent), decision."""
    scale = alt.Scale(domain=["ship", "keep going", "stop", "broken: sample ratio"],
                      range=[ACCENT, QUIET, DOWN, DOWN])  # fmt: skip
    color = alt.Color("decision:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    names = alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=260, domain=False, ticks=False))
    told = [
        alt.Tooltip("name:N"), "decision:N", alt.Tooltip("lift:Q", format="+.0f"),
        alt.Tooltip("low:Q", format="+.0f"), alt.Tooltip("high:Q", format="+.0f"),
    ]  # fmt: skip
    intervals = _chart(alt.Step(24)).mark_rule(strokeWidth=3, opacity=0.55).encode(
        x=alt.X("low:Q", title="lift on the goal, % (always-valid interval)", axis=alt.Axis(format="+d", tickCount=7)),
        x2="high:Q", y=names, color=color, tooltip=told,
    )  # fmt: skip
    points = _chart(alt.Step(24)).mark_point(filled=True, size=70, opacity=1).encode(
        x="lift:Q", y=names, color=color, tooltip=told
    )  # fmt: skip
    return _zero(alt.X(datum=0)) + intervals + points


def _lift() -> Any:
    """The lift at the last look of each day with its interval; rows of day, arm, lift, low, high (per cent)."""
    top = alt.Y("lift:Q", title="lift, %", axis=alt.Axis(format="+d", tickCount=5))
    color = _series("arm")
    told = [
        "arm:N", _WHEN, alt.Tooltip("lift:Q", format="+.0f"), alt.Tooltip("low:Q", format="+.0f"),
        alt.Tooltip("high:Q", format="+.0f"),
    ]  # fmt: skip
    band = _chart(130).mark_area(opacity=0.2, clip=True).encode(x=_DAY, y=alt.Y("low:Q"), y2="high:Q", color=color)
    line = _chart(130).mark_line(strokeWidth=2, point=True, clip=True).encode(x=_DAY, y=top, color=color, tooltip=told)
    return _zero(alt.Y(datum=0)) + band + line


def _journey() -> Any:
    """What a journey did on each day; rows of day, what, count."""
    return _chart(130).mark_line(strokeWidth=2, point=True).encode(
        x=_DAY,
        y=alt.Y("count:Q", title="a day", axis=alt.Axis(format="~s", tickCount=4)),
        color=_series("what"),
        tooltip=["what:N", _WHEN, alt.Tooltip("count:Q", format=",")],
    )  # fmt: skip


def _chart(height: Any) -> Any:
    return alt.Chart(alt.NamedData(ROWS)).properties(width="container", height=height)


def _series(field: str) -> alt.Color:
    legend = alt.Legend(orient="top", title=None, labelLimit=240)
    return alt.Color(f"{field}:N", scale=alt.Scale(range=SERIES), legend=legend, sort=None)


def _zero(channel: alt.X | alt.Y) -> Any:
    side = "x" if isinstance(channel, alt.X) else "y"
    chart = alt.Chart(alt.InlineData([{}])).properties(width="container", height=130 if side == "y" else alt.Step(24))
    return chart.mark_rule(color=INK, strokeWidth=1).encode(**{side: channel})


def _styled(chart: Any) -> Any:
    words = {"labelColor": QUIET, "titleColor": QUIET, "labelFontSize": 12, "titleFontSize": 12}
    return (
        chart.configure(
            font="system-ui, sans-serif",
            background="transparent",
            aria=False,
            autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        )
        .configure_axis(**words, titleFontWeight="normal", gridColor=GRID, domainColor=GRID, tickColor=GRID)
        .configure_legend(labelColor=INK, labelFontSize=12, symbolStrokeWidth=3)
        .configure_view(stroke=None)
    )
