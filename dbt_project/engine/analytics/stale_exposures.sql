{#
    `offset 0` forces an index look-up per user. Few users are stale at a time, but the planner misestimates the rows of
    joins on JSON, and would read the rows of all users.
#}
with stale_users as (
    select * from {{ source('analytics', 'stale_users') }}
),

experiments as (
    select * from {{ ref('experiments') }}
),

all_assignments as not materialized (
    select * from {{ source('experiences', 'assignments') }}
),

user_events as not materialized (
    select * from {{ source('analytics', 'stale_events') }}
),

all_entries as not materialized (
    select * from {{ source('journeys', 'entries') }}
),

definitions as (
    select * from {{ source('journeys', 'definitions') }}
),

programme as (
    select * from {{ source('analytics', 'programme') }}
),

declared as not materialized (
    select * from {{ source('experiences', 'definitions') }}
),

held_out as not materialized (
    select * from {{ source('experiences', 'held_out') }}
),

clock as materialized (
    select {{ published_as_of() }} as as_of
),

shares as (
    select
        experience,
        weights,
        since,
        lead(since, 1, 'infinity') over (partition by experience order by since) as until
    from {{ source('experiences', 'shares') }}
),

assigned as materialized (
    select assigned.*
    from stale_users
    cross join lateral (
        select all_assignments.* from all_assignments where all_assignments.user_id = stale_users.user_id offset 0
    ) as assigned
),

entered as materialized (
    select entered.*
    from stale_users
    cross join lateral (
        select all_entries.* from all_entries where all_entries.user_id = stale_users.user_id offset 0
    ) as entered
    where entered.arm is not null
),

assignments as (
    select
        assigned.experience,
        assigned.user_id,
        assigned.variant,
        assigned.assigned_at,
        shares.weights
    from assigned
    inner join shares
        on assigned.experience = shares.experience
        and assigned.assigned_at >= shares.since
        and assigned.assigned_at < shares.until
    where assigned.mode = 'chance'
),

{# The arm that was shown counts, not the assigned one. Of two arms that a user saw, the first counts. #}
views as (
    select
        assignments.experience,
        assignments.user_id,
        assignments.weights,
        coalesce(events.properties ->> 'variant', assignments.variant) as arm,
        events.occurred_at
    from assignments
    cross join clock
    cross join lateral (
        select user_events.properties, user_events.occurred_at
        from user_events
        where
            user_events.user_id = assignments.user_id
            and user_events.event = 'experience viewed'
            and user_events.occurred_at >= assignments.assigned_at
            and user_events.occurred_at <= clock.as_of
        offset 0
    ) as events
    where
        events.properties ->> 'experience' = assignments.experience
        and assignments.weights ? coalesce(events.properties ->> 'variant', assignments.variant)
),

experience_exposures as (
    select
        experience as experiment,
        user_id,
        (array_agg(arm order by occurred_at, arm))[1] as arm,
        min(occurred_at) as exposed_at,
        count(distinct arm) > 1 as is_in_both_arms,
        weights
    from views
    group by experience, user_id, weights
),

{#
    Intention to treat: all treated entries, whatever their outcome, are compared with those held out. The global
    holdout is no fair control group for one journey, so it is excluded.
#}
entries as (
    select
        entered.journey,
        entered.entry_id,
        entered.user_id,
        entered.entered_at,
        entered.is_in_both_arms,
        case when entered.arm = 'held_out' then 'control' else 'treated' end as arm,
        cast(definitions.definition ->> 'holdout' as double precision) as holdout
    from entered
    cross join clock
    inner join definitions on entered.journey = definitions.journey and entered.version = definitions.version
    where
        not entered.is_held_out_globally
        and entered.entered_at <= clock.as_of
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

{#
    The programme reaches a user with the first entry or assignment, or would have, were the user not held out globally.
    Transactional journeys are for all, and no part of it.
#}
reached as (
    select
        entered.user_id,
        case when entered.is_held_out_globally then 'control' else 'treated' end as arm,
        entered.entered_at as reached_at
    from entered
    cross join clock
    inner join definitions on entered.journey = definitions.journey and entered.version = definitions.version
    where
        entered.entered_at <= clock.as_of
        and coalesce(definitions.definition ->> 'transactional', 'false') = 'false'
    union all
    select
        assigned.user_id,
        'treated' as arm,
        assigned.assigned_at as reached_at
    from assigned
    union all
    select
        held_out.user_id,
        'control' as arm,
        held_out.since as reached_at
    from stale_users
    inner join held_out on stale_users.user_id = held_out.user_id
),

{# Users of the present rules: of the two ways that a user's variant can have been chosen, one is the control group. #}
chosen as (
    select
        assigned.experience || '/' || measured.against as experiment,
        assigned.experience,
        assigned.user_id,
        case when assigned.mode = 'rules' then 'rules' else 'control' end as arm,
        assigned.assigned_at,
        jsonb_build_object(
            'control', measured.share / (measured.share + (1 - measured.chance) / 2),
            'rules', 1 - measured.share / (measured.share + (1 - measured.chance) / 2)
        ) as weights
    from assigned
    inner join declared
        on assigned.experience = declared.experience
        and assigned.rules = md5(cast(nullif(declared.definition -> 'learned', 'null') as text))
    cross join lateral (
        select
            ways.against,
            ways.mode,
            cast(declared.definition -> 'learned' ->> 'chance' as double precision) as chance,
            case
                when ways.mode = 'chance'
                    then cast(declared.definition -> 'learned' ->> 'chance' as double precision)
                else (1 - cast(declared.definition -> 'learned' ->> 'chance' as double precision)) / 2
            end as share
        from (values ('rules_over_single', 'single'), ('rules_over_chance', 'chance')) as ways (against, mode)
    ) as measured
    where assigned.variant <> 'control' and assigned.mode in ('rules', measured.mode)
),

policy_exposures as (
    select
        chosen.experiment,
        chosen.user_id,
        chosen.arm,
        min(events.occurred_at) as exposed_at,
        false as is_in_both_arms,
        chosen.weights
    from chosen
    cross join clock
    cross join lateral (
        select user_events.occurred_at
        from user_events
        where
            user_events.user_id = chosen.user_id
            and user_events.event = 'experience viewed'
            and user_events.properties ->> 'experience' = chosen.experience
            and user_events.occurred_at >= chosen.assigned_at
            and user_events.occurred_at <= clock.as_of
        offset 0
    ) as events
    group by chosen.experiment, chosen.user_id, chosen.arm, chosen.weights
),

programme_shares as (
    select
        share,
        since,
        lead(since, 1, 'infinity') over (order by since) as until
    from {{ source('analytics', 'programme_shares') }}
),

{# Whoever was reached while nobody was held out takes no part, also when somebody is later. #}
first_reached as (
    select distinct on (reached.user_id)
        programme.name as experiment,
        reached.user_id,
        reached.arm,
        reached.reached_at as exposed_at,
        min(reached.arm) over of_user <> max(reached.arm) over of_user as is_in_both_arms,
        programme_shares.share
    from reached
    inner join programme_shares
        on reached.reached_at >= programme_shares.since and reached.reached_at < programme_shares.until
    cross join programme
    window of_user as (partition by reached.user_id)
    order by reached.user_id, reached.reached_at, reached.arm
),

programme_exposures as (
    select
        experiment,
        user_id,
        arm,
        exposed_at,
        is_in_both_arms,
        jsonb_build_object('control', share, 'treated', 1 - share) as weights
    from first_reached
    where share > 0
),

exposures as (
    select * from experience_exposures
    union all
    select * from journey_exposures
    union all
    select * from programme_exposures
    union all
    select * from policy_exposures
)

select
    exposures.experiment,
    exposures.user_id,
    exposures.arm,
    exposures.exposed_at,
    exposures.exposed_at + experiments.goal_within as closes_at,
    exposures.exposed_at + experiments.goal_within <= clock.as_of as is_window_over,
    exposures.is_in_both_arms,
    exposures.weights,
    experiments.goal_events,
    experiments.goal_conditions,
    experiments.is_goal_of_entries,
    experiments.goal_within
from exposures
inner join experiments on exposures.experiment = experiments.experiment
cross join clock
