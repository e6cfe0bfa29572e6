with experiments as (
    select * from {{ ref('experiments') }}
),

all_assignments as (
    select * from {{ source('experiences', 'assignments') }}
),

user_events as not materialized (
    select * from {{ ref('user_events') }}
),

all_entries as (
    select * from {{ source('journeys', 'entries') }}
),

definitions as (
    select * from {{ source('journeys', 'definitions') }}
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
        all_assignments.experience,
        all_assignments.user_id,
        all_assignments.variant,
        all_assignments.assigned_at,
        shares.weights
    from all_assignments
    inner join shares
        on all_assignments.experience = shares.experience
        and all_assignments.assigned_at >= shares.since
        and all_assignments.assigned_at < shares.until
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
    inner join user_events as events
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
        all_entries.journey,
        all_entries.entry_id,
        all_entries.user_id,
        all_entries.entered_at,
        all_entries.is_in_both_arms,
        case when all_entries.status = 'held_out' then 'control' else 'treated' end as arm,
        cast(definitions.definition ->> 'holdout' as double precision) as holdout
    from all_entries
    inner join definitions
        on all_entries.journey = definitions.journey and all_entries.version = definitions.version
    where
        all_entries.status <> 'excluded'
        and all_entries.reason is distinct from 'global holdout'
        and all_entries.entered_at <= {{ published_as_of() }}
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
