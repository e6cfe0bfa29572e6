"""The health of the stream of events: one row of figures, computed in SQL, and their bounds. Pure."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Bound:
    """A figure of `health`, with its lower and upper bound."""

    figure: str
    description: str
    least: float | None = None
    most: float | None = None


BOUNDS = {
    "volume_is_usual": Bound(
        "volume_ratio", "The last day has between half and twice the track events of that day in the weeks before.",
        least=0.5, most=2,
    ),
    "events_are_fresh": Bound("hours_since_last_event", "The latest event occurred within 24 hours.", most=24),
    "few_lines_are_rejected": Bound(
        "rejected_share", "At most 5 % of the lines of the last day are rejected.", most=0.05
    ),
    "few_lines_are_duplicates": Bound(
        "duplicate_share", "At most 20 % of the lines of the last day are stored already.", most=0.2
    ),
    "clocks_are_right": Bound(
        "skewed_share", "At most 10 % of the events of the last day are from the future or a clock over 5 minutes off.",
        most=0.1,
    ),
    "files_only_grow": Bound(
        "changed_files", "No file of the last day was cut or replaced after it was loaded.", most=0
    ),
    "the_inbox_is_drained": Bound(
        "inbox_seconds", "No line waits in the inbox for over a minute; `upnext status` shows how many wait.",
        most=60,
    ),
    "no_file_is_refused": Bound("refused_files", "No file is refused as a whole; raw.refused_files says why.", most=0),
}  # fmt: skip


def health(as_of: datetime) -> str:
    """Return the query of the figures at `as_of`, one row.

    The last day of loading ends at the newest load. An earlier week counts for the usual volume if events go back that
    far; without such a week, the volume counts as usual.
    """
    moment = f"'{as_of.isoformat()}'::timestamptz"
    return f"""
        with recent as (
            select * from raw.loads
            where loaded_at > (select max(loads.loaded_at) from raw.loads) - interval '1 day'
        ),

        totals as (
            select
                greatest(sum(received), 1)::float8 as received,
                greatest(sum(stored), 1)::float8 as stored,
                coalesce(sum(rejected), 0)::float8 as rejected,
                coalesce(sum(duplicate), 0)::float8 as duplicate,
                count(*) filter (where change in ('cut', 'replaced')) as changed_files
            from recent
        ),

        skewed as (
            select count(*)::float8 as events
            from raw.events
            where
                flags is not null
                and flags && array['future', 'skewed']
                and load_id in (select recent.load_id from recent)
        ),

        volumes as (
            select
                weeks.number as week,
                min(event_names.first_at) as first_at,
                sum(raw.count_events(
                    event_names.event,
                    {moment} - weeks.number * interval '7 days' - interval '1 day',
                    {moment} - weeks.number * interval '7 days'
                ))::float8 as events
            from raw.event_names
            cross join generate_series(0, 4) as weeks (number)
            group by weeks.number
        ),

        usual as (
            select avg(events) as events
            from volumes
            where week > 0 and first_at <= {moment} - week * interval '7 days' - interval '1 day'
        ),

        latest as (
            select max(raw.last_seen(event_names.event, {moment})) as occurred_at
            from raw.event_names
        )

        select
            coalesce((select events from volumes where week = 0) / nullif(usual.events, 0), 1) as volume_ratio,
            coalesce(extract(epoch from {moment} - latest.occurred_at) / 3600, 0)::float8 as hours_since_last_event,
            totals.rejected / totals.received as rejected_share,
            totals.duplicate / totals.received as duplicate_share,
            skewed.events / totals.stored as skewed_share,
            totals.changed_files,
            (select count(*) from raw.refused_files) as refused_files,
            (
                select coalesce(greatest(extract(epoch from {moment} - min(received_at)), 0), 0)::float8
                from edge.inbox
            ) as inbox_seconds
        from totals
        cross join skewed
        cross join usual
        cross join latest
    """  # noqa: S608 - the instant is no text of others
