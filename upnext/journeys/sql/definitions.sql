-- Definitions and steps by version.

-- name: record_definition
-- Does nothing if this version is already recorded.
insert into journeys.definitions (journey, version, definition, first_dispatched_at, in_force_since)
select
    :journey,
    :version,
    cast(:definition as jsonb),
    :as_of,
    greatest(
        cast(:as_of as timestamptz),
        (select max(in_force_since) from journeys.definitions where journey = :journey) + interval '1 microsecond'
    )
on conflict (journey, version) do nothing
returning version;

-- name: put_in_force
-- A version that others have replaced, and that is brought back, is the newest again.
update journeys.definitions
set in_force_since = greatest(cast(:as_of as timestamptz), newest.in_force_since + interval '1 microsecond')
from (
    select version, in_force_since from journeys.definitions
    where journey = :journey
    order by in_force_since desc
    limit 1
) as newest
where definitions.journey = :journey and definitions.version = :version and newest.version <> :version;

-- name: record_limits
insert into journeys.limits as known (journey, most, per, pauses, counted_since)
values (:journey, :most, cast(:per as interval), cast(:pauses as jsonb), :as_of)
on conflict (journey) do update
set most = excluded.most, per = excluded.per, pauses = excluded.pauses
where (known.most, known.per, known.pauses) is distinct from (excluded.most, excluded.per, excluded.pauses);

-- name: forget_limits
delete from journeys.limits where journey = :journey;

-- name: record_step
insert into journeys.steps
    (journey, version, step, position, kind, next, otherwise, after, wait, within, any_of, of_steps, late, variants,
        arms, asks, definition)
values (
    :journey, :version, :step, :position, :kind, :next, :otherwise, cast(:after as interval),
    cast(:wait as interval), cast(:within as interval), :any_of, :of_steps, :late, cast(:variants as jsonb),
    cast(:arms as jsonb), cast(:asks as jsonb), cast(:definition as jsonb)
);

-- name: events_of
-- Events that may move a user in the journey: goals, exits and awaited events, of all its versions.
select jsonb_array_elements_text(nullif(definition -> 'goal' -> 'any_of', 'null')) from journeys.definitions
where journey = :journey
union
select jsonb_array_elements_text(nullif(exits.rule -> 'any_of', 'null'))
from journeys.definitions
cross join jsonb_array_elements(nullif(definition -> 'exits', 'null')) as exits (rule)
where journey = :journey
union
select unnest(any_of) from journeys.steps
where journey = :journey and kind = 'wait';

-- name: followed
-- The segments that may move a user in the journey, whether traits and features may, and whether a rule may end an
-- entry, in any of its versions.
with questions as (
    select definition -> 'goal' as question, false as is_rule from journeys.definitions
    where journey = :journey
    union all
    select jsonb_array_elements(nullif(definition -> 'exits', 'null')), true from journeys.definitions
    where journey = :journey
    union all
    select asks, false from journeys.steps
    where journey = :journey and kind = 'wait'
)

select
    coalesce(array_agg(question ->> 'segment') filter (where question ->> 'segment' is not null), '{}') as segments,
    coalesce(
        bool_or(jsonb_typeof(question -> 'user') = 'object' or jsonb_typeof(question -> 'features') = 'object'), false
    ) as users,
    coalesce(bool_or(is_rule), false) as has_rules
from questions;

-- name: steps_of
-- Whether a journey, in any of its versions, has waits, and whether it has loops.
select
    coalesce(bool_or(kind = 'wait'), false) as can_wait,
    coalesce(bool_or(targets.position <= steps.position), false) as can_come_round
from journeys.steps
left join lateral (
    select min(others.position) as position from journeys.steps as others
    where
        others.journey = steps.journey
        and others.version = steps.version
        and (
            others.step in (steps.next, steps.otherwise)
            or steps.arms @> jsonb_build_array(jsonb_build_object('to', others.step))
        )
) as targets on true
where steps.journey = :journey;

-- name: has_view
-- Whoever may make none leaves it to the owner of the warehouse.
select to_regclass('journeys.' || :journey) is not null or not has_schema_privilege('journeys', 'create');
