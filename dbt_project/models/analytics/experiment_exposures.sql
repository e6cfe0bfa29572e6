with experiences as (
    select
        experience,
        definition ->> 'segment' as segment,
        definition -> 'goal' as goal,
        cast(definition ->> 'minimum_lift' as double precision) as minimum_lift
    from {{ source('experiences', 'definitions') }}
),

shares as (
    select
        experience,
        weights,
        since,
        lead(since, 1, 'infinity') over (partition by experience order by since) as until
    from {{ source('experiences', 'shares') }}
),

assignments as (
    select
        assignments.experience,
        assignments.user_id,
        assignments.variant,
        assignments.assigned_at,
        shares.weights
    from {{ source('experiences', 'assignments') }} as assignments
    inner join shares
        on assignments.experience = shares.experience
        and assignments.assigned_at >= shares.since
        and assignments.assigned_at < shares.until
),

{# What was seen says more than what was drawn: of who saw two arms the first counts. #}
views as (
    select
        assignments.experience,
        assignments.user_id,
        assignments.weights,
        coalesce(events.properties ->> 'variant', assignments.variant) as arm,
        events.occurred_at
    from assignments
    inner join {{ ref('user_events') }} as events
        on assignments.user_id = events.user_id
        and assignments.experience = events.properties ->> 'experience'
        and events.occurred_at >= assignments.assigned_at
    where
        events.event = 'experience viewed'
        and events.occurred_at <= {{ published_as_of() }}
        and assignments.weights ? coalesce(events.properties ->> 'variant', assignments.variant)
),

experience_exposures as (
    select
        views.experience as experiment,
        'experience' as kind,
        experiences.segment,
        views.user_id,
        (array_agg(views.arm order by views.occurred_at, views.arm)) [1] as arm,
        min(views.occurred_at) as exposed_at,
        count(distinct views.arm) > 1 as is_in_both_arms,
        experiences.goal,
        views.weights,
        experiences.minimum_lift
    from views
    inner join experiences on views.experience = experiences.experience
    group by
        views.experience, experiences.segment, views.user_id, experiences.goal, views.weights, experiences.minimum_lift
),

{# The goal is the newest one, whichever version somebody entered with. #}
journeys as (
    select distinct on (journey) journey, definition ->> 'segment' as segment, definition -> 'goal' as goal
    from {{ source('journeys', 'definitions') }}
    order by journey, first_dispatched_at desc
),

{#
    By intent to treat: everybody drawn, whatever was sent, against those held out. Who is held out of everything is no
    fair comparison for one journey.
#}
entries as (
    select
        entries.journey,
        entries.entry_id,
        entries.user_id,
        entries.entered_at,
        entries.is_in_both_arms,
        case when entries.status = 'held_out' then 'control' else 'treated' end as arm,
        cast(definitions.definition ->> 'holdout' as double precision) as holdout
    from {{ source('journeys', 'entries') }} as entries
    inner join {{ source('journeys', 'definitions') }} as definitions
        on entries.journey = definitions.journey and entries.version = definitions.version
    where
        entries.status <> 'excluded'
        and entries.reason is distinct from 'global holdout'
        and entries.entered_at <= {{ published_as_of() }}
),

journey_exposures as (
    select distinct on (entries.journey, entries.user_id)
        entries.journey as experiment,
        'journey' as kind,
        coalesce(journeys.segment, '') as segment,
        entries.user_id,
        entries.arm,
        entries.entered_at as exposed_at,
        (
            bool_or(entries.is_in_both_arms) over in_journey
            or min(entries.arm) over in_journey <> max(entries.arm) over in_journey
        ) as is_in_both_arms,
        journeys.goal,
        jsonb_build_object('control', entries.holdout, 'treated', 1 - entries.holdout) as weights,
        0.1::double precision as minimum_lift
    from entries
    inner join journeys on entries.journey = journeys.journey
    window in_journey as (partition by entries.journey, entries.user_id)
    order by entries.journey, entries.user_id, entries.entry_id
),

exposures as (
    select * from experience_exposures
    union all
    select * from journey_exposures
),

clock as materialized (
    select {{ published_as_of() }} as as_of
)

select
    exposures.experiment,
    exposures.kind,
    exposures.segment,
    exposures.user_id,
    exposures.arm,
    exposures.exposed_at,
    exposures.is_in_both_arms,
    exposures.weights,
    exposures.minimum_lift,
    array(select jsonb_array_elements_text(exposures.goal -> 'any_of')) as goal_events,
    cast(exposures.goal ->> 'within' as interval) as goal_within,
    md5(cast(exposures.goal as text)) as goal_version,
    least(exposures.exposed_at + cast(exposures.goal ->> 'within' as interval), clock.as_of) as counts_until,
    exposures.exposed_at + cast(exposures.goal ->> 'within' as interval) <= clock.as_of as is_window_over
from exposures
cross join clock
