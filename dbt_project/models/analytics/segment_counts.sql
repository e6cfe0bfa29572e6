with users as materialized (
    select * from {{ ref('experiment_users') }} where is_window_over
),

changes as not materialized (
    select * from {{ source('segments', 'membership_changes') }}
),

ticks as (
    select * from {{ source('segments', 'ticks') }}
),

experiments as (
    select * from {{ ref('experiments') }}
),

segments as (
    select distinct segment from {{ source('segments', 'evaluations') }}
),

{# Whether a user was in a segment is a look-up of the last change before the exposure. #}
memberships as (
    select
        segments.segment,
        users.experiment,
        users.arm,
        users.has_reached_goal
    from users
    cross join segments
    cross join lateral (
        select changes.change
        from changes
        inner join ticks on changes.tick_id = ticks.tick_id
        where
            changes.segment = segments.segment
            and changes.user_id = users.user_id
            and changes.as_of <= users.exposed_at
            and ticks.published_at is not null
        order by changes.change_id desc
        limit 1
    ) as last_change
    where last_change.change = 'entered'
)

select
    memberships.segment,
    memberships.experiment,
    memberships.arm,
    experiments.minimum_lift,
    count(*) as users,
    count(*) filter (where memberships.has_reached_goal) as conversions
from memberships
inner join experiments on memberships.experiment = experiments.experiment
group by memberships.segment, memberships.experiment, memberships.arm, experiments.minimum_lift
