-- Checks for defects that make results wrong. Each row names the experiment or the event.

-- name: sample_ratios_hold
select experiment as name, min(srm_p) as found from analytics.experiment_results
where as_of = :as_of and srm_p < :alarm
group by experiment;

-- name: exposures_are_assigned
select coalesce(definitions.experience, 'no such experience') as name, count(*) as found
from events.user_events as events
left join experiences.definitions on definitions.experience = events.properties ->> 'experience'
where
    events.event = 'experience viewed'
    and events.occurred_at > cast(:as_of as timestamptz) - interval '7 days'
    and events.occurred_at <= :as_of
    and not exists (
        select from experiences.assignments
        inner join experiences.shares on shares.experience = assignments.experience
        where
            assignments.experience = events.properties ->> 'experience'
            and assignments.user_id = events.user_id
            and assignments.assigned_at <= events.occurred_at
            and shares.weights ? coalesce(events.properties ->> 'variant', assignments.variant)
            -- A user who was merged with a user of another arm has seen both.
            and (
                assignments.is_in_both_arms
                or coalesce(events.properties ->> 'variant', assignments.variant) = assignments.variant
            )
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
select exposures.experiment as name, count(*) filter (where early.is_early) as found
from analytics.experiment_users as exposures
inner join analytics.experiments on experiments.experiment = exposures.experiment
inner join experiences.assignments
    on assignments.experience = exposures.experiment and assignments.user_id = exposures.user_id
cross join lateral (
    select exists (
        select from events.user_events as events
        where
            events.user_id = exposures.user_id
            and events.event = any(experiments.goal_events)
            and events.occurred_at >= assignments.assigned_at
            and events.occurred_at < exposures.exposed_at
    ) as is_early
) as early
group by exposures.experiment
having count(*) filter (where early.is_early) * 20 > count(*);

-- name: sums_are_of_one_currency
select summed.event || ': ' || string_agg(distinct currencies.code, ', ' order by currencies.code) as name,
    count(distinct currencies.code) as found
from unnest(cast(:summed_events as text[])) as summed (event)
inner join events.user_events as events
    on events.event = summed.event
    and events.occurred_at > cast(:as_of as timestamptz) - interval '30 days'
    and events.occurred_at <= :as_of
cross join lateral (
    select case
        when events.properties ->> 'currency' ~ '^[A-Za-z]{3}$' then upper(events.properties ->> 'currency')
        when events.properties ->> 'currency' is null then 'no currency'
        else 'no code of a currency'
    end as code
) as currencies
group by summed.event
having count(distinct currencies.code) > 1;

-- name: metrics_move
select wanted.event as name, before.events as found
from (
    select unnest(cast(:events as text[])) as event
    union
    select unnest(goal_events) from analytics.experiments
) as wanted
cross join lateral (
    select count(*) as events from events.user_events as events
    where
        events.event = wanted.event
        and events.occurred_at > cast(:as_of as timestamptz) - interval '10 days'
        and events.occurred_at <= cast(:as_of as timestamptz) - interval '3 days'
) as before
where before.events >= 70 and not exists (
    select from events.user_events as events
    where
        events.event = wanted.event
        and events.occurred_at > cast(:as_of as timestamptz) - interval '3 days'
        and events.occurred_at <= :as_of
);
