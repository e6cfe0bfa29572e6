with goals as (
    select definition -> 'goal' -> 'any_of' as any_of from {{ source('experiences', 'definitions') }}
    union all
    select definition -> 'goal' -> 'any_of' as any_of from {{ source('journeys', 'definitions') }}
),

{# An array, and a beginning, so that the events are found by index: nothing counts before the first exposure. #}
events as (
    select user_id, event, occurred_at, properties ->> 'experience' as experience
    from {{ ref('user_events') }}
    where
        occurred_at <= {{ published_as_of() }}
        and occurred_at >= least(
            (select min(assigned_at) from {{ source('experiences', 'assignments') }}),
            (select min(entered_at) from {{ source('journeys', 'entries') }})
        )
        and event = any(
            array['experience viewed', 'experience clicked']
            || array(select distinct jsonb_array_elements_text(goals.any_of) from goals)
        )
),

assignments as (
    select * from {{ source('experiences', 'assignments') }}
),

experiences as (
    select * from {{ source('experiences', 'definitions') }}
),

entries as (
    select * from {{ source('journeys', 'entries') }}
),

journeys as (
    select * from {{ source('journeys', 'definitions') }}
),

exposures as (
    select
        assignments.experience as experiment,
        assignments.user_id,
        assignments.variant,
        min(events.occurred_at) as exposed_at
    from assignments
    inner join events
        on assignments.user_id = events.user_id
        and assignments.experience = events.experience
        and events.occurred_at >= assignments.assigned_at
    where events.event = 'experience viewed'
    group by assignments.experience, assignments.user_id, assignments.variant
),

experience_users as (
    select
        exposures.experiment,
        'experience' as kind,
        experiences.definition ->> 'segment' as segment,
        exposures.user_id,
        exposures.variant as arm,
        exposures.exposed_at,
        experiences.definition -> 'goal' -> 'any_of' as goal_events,
        cast(experiences.definition -> 'goal' ->> 'within' as interval) as goal_within
    from exposures
    inner join experiences on exposures.experiment = experiences.experience
),

{#
    By intent to treat: everybody drawn, whatever was sent, against those held out; a user's first entry counts. Who is
    held out of everything is no fair comparison for one journey.
#}
journey_users as (
    select distinct on (entries.journey, entries.user_id)
        entries.journey as experiment,
        'journey' as kind,
        journeys.definition ->> 'segment' as segment,
        entries.user_id,
        case when entries.status = 'held_out' then 'control' else 'treated' end as arm,
        entries.entered_at as exposed_at,
        journeys.definition -> 'goal' -> 'any_of' as goal_events,
        cast(journeys.definition -> 'goal' ->> 'within' as interval) as goal_within
    from entries
    inner join journeys on entries.journey = journeys.journey and entries.version = journeys.version
    where entries.status <> 'excluded' and entries.reason is distinct from 'global holdout'
    order by entries.journey, entries.user_id, entries.entry_id
),

users as (
    select * from experience_users
    union all
    select * from journey_users
)

select
    users.experiment,
    users.kind,
    users.segment,
    users.user_id,
    users.arm,
    users.exposed_at,
    users.exposed_at + users.goal_within <= {{ published_as_of() }} as is_window_over,
    coalesce(
        bool_or(events.event = 'experience clicked' and events.experience = users.experiment), false
    ) as has_clicked,
    coalesce(
        bool_or(users.goal_events ? events.event and events.occurred_at > users.exposed_at), false
    ) as has_reached_goal
from users
left join events
    on users.user_id = events.user_id
    and events.occurred_at >= users.exposed_at
    and events.occurred_at <= users.exposed_at + users.goal_within
group by users.experiment, users.kind, users.segment, users.user_id, users.arm, users.exposed_at, users.goal_within
