-- Checks for defects that make results wrong. Each row names the experiment or the event.

-- name: sample_ratios_hold
select experiment as name, min(srm_p) as found from analytics.experiment_results
where as_of = :as_of and srm_p < :alarm
group by experiment;

-- name: exposures_are_assigned
with views as materialized (
    select user_id, properties ->> 'experience' as experience, properties ->> 'variant' as variant, occurred_at
    from events.user_events
    where
        event = 'experience viewed'
        and occurred_at > cast(:as_of as timestamptz) - interval '7 days'
        and occurred_at <= :as_of
)

select coalesce(definitions.experience, 'no such experience') as name, count(*) as found
from views
left join experiences.definitions on definitions.experience = views.experience
where not exists (
    select from experiences.assignments
    inner join experiences.shares on shares.experience = assignments.experience
    where
        assignments.experience = views.experience
        and assignments.user_id = views.user_id
        and assignments.assigned_at <= views.occurred_at
        and shares.weights ? coalesce(views.variant, assignments.variant)
        -- A user who was merged with a user of another arm has seen both.
        and (assignments.is_in_both_arms or coalesce(views.variant, assignments.variant) = assignments.variant)
)
group by 1;

-- name: no_arm_is_silent
with recent as (
    select experiment, arm, weights from analytics.experiment_users
    where exposed_at > cast(:as_of as timestamptz) - interval '7 days'
),

expected as (
    select
        drawn.experiment, shares.key as arm, sum(drawn.users * cast(shares.value as double precision)) as users
    from (select experiment, weights, count(*) as users from recent group by experiment, weights) as drawn
    cross join jsonb_each_text(drawn.weights) as shares
    group by 1, 2
)

select experiment || ', ' || arm as name, users as found from expected
where users >= 10 and not exists (
    select from recent where recent.experiment = expected.experiment and recent.arm = expected.arm
);

-- name: goals_follow_exposures
with exposures as materialized (
    select
        users.experiment,
        users.user_id,
        assignments.assigned_at,
        users.exposed_at,
        experiments.goal_events
    from analytics.experiment_users as users
    inner join analytics.experiments on experiments.experiment = users.experiment
    inner join experiences.assignments
        on assignments.experience = users.experiment and assignments.user_id = users.user_id
    where users.exposed_at > cast(:as_of as timestamptz) - interval '7 days'
),

early as materialized (
    select distinct exposures.experiment, exposures.user_id
    from exposures
    inner join events.user_events as events
        on events.user_id = exposures.user_id
        and events.event = any(exposures.goal_events)
        and events.occurred_at >= exposures.assigned_at
        and events.occurred_at < exposures.exposed_at
)

select exposures.experiment as name, count(early.user_id) as found
from exposures
left join early on early.experiment = exposures.experiment and early.user_id = exposures.user_id
group by exposures.experiment
having count(early.user_id) * 20 > count(*);

-- name: sums_are_of_one_currency
with currencies as (
    select distinct
        event,
        case
            when properties ->> 'currency' ~ '^[A-Za-z]{3}$' then upper(properties ->> 'currency')
            when properties ->> 'currency' is null then 'no currency'
            else 'no code of a currency'
        end as code
    from events.user_events
    where
        event = any(cast(:summed_events as text []))
        and occurred_at > cast(:as_of as timestamptz) - interval '30 days'
        and occurred_at <= :as_of
)

select event || ': ' || string_agg(code, ', ' order by code) as name, count(*) as found from currencies
group by event
having count(*) > 1;

-- name: metrics_move
with counts as (
    select
        event,
        count(*) filter (where occurred_at <= cast(:as_of as timestamptz) - interval '3 days') as before,
        count(*) filter (where occurred_at > cast(:as_of as timestamptz) - interval '3 days') as since
    from events.user_events
    where
        event = any(cast(:events as text []) || array(select unnest(goal_events) from analytics.experiments))
        and occurred_at > cast(:as_of as timestamptz) - interval '10 days'
        and occurred_at <= :as_of
    group by event
)

select event as name, before as found from counts where before >= 70 and since = 0;
