-- Definitions and steps by version.

-- name: record_definition
-- Does nothing if this version is already recorded.
insert into journeys.definitions (journey, version, definition, first_dispatched_at)
values (:journey, :version, cast(:definition as jsonb), :as_of)
on conflict (journey, version) do nothing
returning version;

-- name: record_step
insert into journeys.steps
    (journey, version, step, position, kind, next, otherwise, after, wait, within, any_of, of_step, late, variants,
        definition)
values (
    :journey, :version, :step, :position, :kind, :next, :otherwise, cast(:after as interval),
    cast(:wait as interval), cast(:within as interval), :any_of, :of_step, :late, cast(:variants as jsonb),
    cast(:definition as jsonb)
);

-- name: events_of
-- Events that may move a user in the journey: goals and awaited events, of all its versions.
select jsonb_array_elements_text(definition -> 'goal' -> 'any_of') from journeys.definitions
where journey = :journey
union
select unnest(any_of) from journeys.steps
where journey = :journey and kind = 'wait';

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
        and others.step in (steps.next, steps.otherwise)
) as targets on true
where steps.journey = :journey;

-- name: has_view
select to_regclass('journeys.' || :journey) is not null;
