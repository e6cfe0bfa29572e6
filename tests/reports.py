"""Facts of a report, as many as a test wants: with names, numbers and mails that are made up."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from upnext.report.facts import Facts, Mail

AS_OF = datetime(2026, 3, 31, 12, tzinfo=UTC)
HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror='window.hacked=1'>",
    "'\"><svg onload=window.hacked=1>",
    "{{ 7 * 7 }} ${7*7} \u2028",
    "datum.x' + constructor.constructor('window.hacked=1')() + '",
)
SCRIPTS = ("Größe und Übermaß", "дорожная карта", "旅程を開始する利用者", "مستخدمون نشطون", "x" * 60)


def result(experiment: str, segment: str, number: int, **values: Any) -> dict[str, Any]:
    lift = (number % 9 - 2) / 10
    return {
        "experiment": experiment, "segment": segment, "metric": "goal", "arm": "a", "type": "proportion",
        "n_control": 900, "n_arm": 1000, "mean_control": 0.2, "mean_arm": 0.2 * (1 + lift), "diff": 0.2 * lift,
        "diff_always_low": 0.2 * lift - 0.03, "diff_always_high": 0.2 * lift + 0.03, "lift": lift,
        "lift_always_low": lift - 0.15, "lift_always_high": lift + 0.2, "p_adjusted": 0.01, "reason": None,
        "decision": ("ship", "keep going", "stop", "broken: sample ratio")[number % 4], "note": None, "days_left": 12,
        "n_open_control": 3, "n_open_arm": number % 3,
        **values,
    }  # fmt: skip


def made_up(
    *, segments: int, experiences: int, journeys: int = 2, days: int = 90, names: tuple[str, ...] = ()
) -> Facts:
    """Return facts of so many of each; the first ones have the given names."""

    def name(kind: str, number: int) -> str:
        return names[number] if number < len(names) else f"{kind}_{number:03}_with_a_name_of_some_length"

    dates = [date(2026, 3, 31) - timedelta(days=back) for back in reversed(range(days))]
    segment_names = [name("segment", number) for number in range(segments)]
    experience_names = [name("experience", number) for number in range(experiences)]
    journey_names = [f"{name('journey', number)} " for number in range(journeys)]
    text = names[0] if names else "Upgrade to Premium"
    goal_rows = [
        result(one, segment_names[nth % segments], nth)
        for nth, one in enumerate([*experience_names, *journey_names])
        if segments
    ]
    started = {"since": AS_OF - timedelta(days=days), "by": text}
    return Facts(
        as_of=AS_OF,
        analysed_at=AS_OF,
        segments=[
            {"name": one, "segment": one, "members": 5000 - nth, "is_held": nth == 1,
             "error": text if nth == 2 else None,
             "description": f"Users who do {text}.", "owner": "growth", "is_of_accounts": nth == 3}
            for nth, one in enumerate(segment_names)
        ],
        near_misses=[
            {"segment": one, "condition": f"logins >= {nth} and '{text}'", "users": 40 + nth, "is_estimate": nth == 0}
            for nth, one in enumerate(segment_names)
        ],
        journeys=[
            {"name": one, "segment": segment_names[nth % segments] if segments else None, "description": text,
             "owner": "growth", "goal": f"{text} within 14 days", "started": started}
            for nth, one in enumerate(journey_names)
        ],
        experiences=[
            {"name": one, "segment": segment_names[nth % segments], "description": text, "owner": "growth",
             "goal": f"{text} within 7 days", "surface": "web", "slot": "homepage_banner",
             "kind": ("banner", "footer", "module", "panel", "button", "modal", "tooltip", "tour")[nth % 8],
             "place": "At the top", "started": started if nth else None,
             "variants": {"a": {"copy": text, "url": "https://otto.example", "steps": [text] if nth % 8 == 7 else []}}}
            for nth, one in enumerate(experience_names)
        ],
        programme={
            "decision": "ship",
            "users_reached": 9000, "users_held_out": 1000, "goals": 120.0, "goals_low": 20.0, "goals_high": 220.0,
            "revenue_metric": None,
        },
        checks=[{"text": "Events come.", "found": found} for found in ({text: 3.0}, {}, None)],
        mails=[Mail(one, text, text, subject=text, html=f"<h1>{text}</h1>") for one in journey_names]
        + [Mail(one, text, f"{text}.b", reason=text) for one in journey_names],
        tables={
            "segment_days": [
                {"segment": one, "day": day, "entered": 10, "exited": 9, "members": 5000 - nth + place}
                for nth, one in enumerate(segment_names)
                for place, day in enumerate(dates)
            ],
            "overlaps": [
                {"segment": one, "other": other, "users": 5000 if one == other else 100}
                for one in segment_names[:15]
                for other in segment_names[:15]
            ],
            "entries": [
                {"journey": one, "status": "converted", "reason": text, "entries": 20} for one in journey_names
            ],
            "entry_days": [{"journey": one, "day": day, "entries": 3} for one in journey_names for day in dates],
            "messages": [
                {"journey": one, "step": text, "channel": "email", "status": status, "reason": text, "messages": 7}
                for one in journey_names
                for status in ("sent", "skipped")
            ],
            "message_days": [
                {"journey": one, "step": text, "day": day, "messages": 3} for one in journey_names for day in dates
            ],
            "steps": [
                {"journey": one, "step": text, "position": 0, "kind": "email", "next": text, "otherwise": text,
                 "definition": {"subject": text, "after": "0 days", "wait": None, "copy": None}}
                for one in journey_names
            ],
            "funnel": [
                {"journey": one, "step": text, "sent": 7, "opened": 3, "clicked": 1, "converted": 1, "open_rate": 0.4,
                 "click_rate": 0.1, "goal_rate": 0.1}
                for one in journey_names
            ],
            "results": goal_rows + [{**row, "metric": text, "type": "mean", "decision": None} for row in goal_rows],
            "lift_days": [
                {"experiment": row["experiment"], "arm": "a", "day": day, "lift": row["lift"],
                 "lift_always_low": row["lift"] - 0.2, "lift_always_high": row["lift"] + 0.3}
                for row in goal_rows
                for day in dates
            ],
            "by_segment": [
                {"segment": row["segment"], "experiment": row["experiment"], "arm": "a", "reference": "control",
                 "n_arm": 10, "n_reference": 9, "lift": None, "finding": text}
                for row in goal_rows
            ],
            "copies": [
                {"experiment": row["experiment"], "variant": "a", "exposed": 10, "rate": 0.1, "goal_rate": None,
                 "is_best_by_goals": True}
                for row in goal_rows
            ],
            "freshness": [{"source": text, "loaded_at": AS_OF, "received": 10, "rejected": 1}],
            "newest_events": [{"event": text, "occurred_at": AS_OF}],
            "rejects": [{"source": text, "reason": text, "lines": 4}],
            "refusals": [{"reason": text, "requests": 4}],
            "drifts": [{"model": text, "rebuilt_at": AS_OF, "drift": 0}],
            "unknown_outcomes": [{"journey": text, "step": text, "messages": 2}],
            "counts": [{"refused_files": 1, "waiting": 2}],
        },
    )  # fmt: skip
