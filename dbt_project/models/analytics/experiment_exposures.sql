with experiments as (
    select * from {{ ref('experiments') }}
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
        experience as experiment,
        user_id,
        (array_agg(arm order by occurred_at, arm)) [1] as arm,
        min(occurred_at) as exposed_at,
        count(distinct arm) > 1 as is_in_both_arms,
        weights
    from views
    group by experience, user_id, weights
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
    select distinct on (journey, user_id)
        journey as experiment,
        user_id,
        arm,
        entered_at as exposed_at,
        (
            bool_or(is_in_both_arms) over in_journey or min(arm) over in_journey <> max(arm) over in_journey
        ) as is_in_both_arms,
        jsonb_build_object('control', holdout, 'treated', 1 - holdout) as weights
    from entries
    window in_journey as (partition by journey, user_id)
    order by journey, user_id, entry_id
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
    exposures.user_id,
    exposures.arm,
    exposures.exposed_at,
    exposures.is_in_both_arms,
    exposures.weights,
    experiments.goal_events,
    experiments.goal_within,
    least(exposures.exposed_at + experiments.goal_within, clock.as_of) as counts_until,
    exposures.exposed_at + experiments.goal_within <= clock.as_of as is_window_over
from exposures
inner join experiments on exposures.experiment = experiments.experiment
cross join clock
