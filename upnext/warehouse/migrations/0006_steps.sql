-- A step can have several ways, and a question can ask for more than events.
alter table journeys.steps drop constraint steps_kind_check;
alter table journeys.steps add constraint steps_kind_check check (
    kind in (
        'email', 'webhook', 'cta', 'identify', 'track', 'start', 'exit', 'delay', 'wait', 'branch', 'split'
    )
);
alter table journeys.steps
-- What a wait asks for, as journeys.answers reads it.
add column asks jsonb,
-- The ways of a branch or a split, in their order: where each leads (`to`), and who takes it (`asks`, or a range).
add column arms jsonb,
-- The steps whose messages a wait or a branch asks about.
add column of_steps text [] not null default '{}';

update journeys.steps
set
    of_steps = array_remove(array[of_step], null),
    asks = case when kind = 'wait' then asked.question end,
    arms = case
        when kind = 'branch' then jsonb_build_array(jsonb_build_object('to', next, 'asks', asked.question))
    end,
    any_of = case when kind = 'wait' then any_of end
from (
    select
        steps.journey as of_journey,
        steps.version as of_version,
        steps.step as of_name,
        jsonb_build_object(
            'any_of', to_jsonb(steps.any_of),
            'of_step', steps.of_step,
            'where', steps.definition -> 'where',
            'context', steps.definition -> 'context',
            'keyed_by', steps.definition -> 'keyed_by',
            'features', case when steps.definition ->> 'feature' is not null then jsonb_build_object(
                steps.definition ->> 'feature',
                jsonb_strip_nulls(jsonb_build_object(
                    'equals', steps.definition -> 'equals',
                    'at_least', steps.definition -> 'at_least',
                    'at_most', steps.definition -> 'at_most'
                ))
            ) end
        ) as question
    from journeys.steps
    where steps.kind in ('wait', 'branch')
) as asked
where
    steps.kind in ('wait', 'branch')
    and steps.journey = asked.of_journey and steps.version = asked.of_version and steps.step = asked.of_name;

-- The hours at which a message may go are those of its step.
update journeys.steps
set definition = steps.definition || jsonb_build_object(
    'send_window', definitions.definition -> 'send_window',
    'quiet_hours', definitions.definition -> 'quiet_hours',
    'out_of_hours', 'shift'
)
from journeys.definitions
where
    definitions.journey = steps.journey and definitions.version = steps.version and steps.kind in ('email', 'webhook');

alter table journeys.steps drop column of_step;

-- A goal has its key beside what it asks for.
update journeys.definitions
set definition = jsonb_set(definition, '{goal,keyed_by}', definition -> 'keyed_by')
where definition ->> 'keyed_by' is not null;

-- The event that let the user in, from which copy and branches read; null where none did.
alter table journeys.entries add column trigger_source text, add column trigger_id text;
update journeys.entries
set
    trigger_source = split_part(substr(cause, 7), '/', 1),
    trigger_id = substr(cause, 8 + length(split_part(substr(cause, 7), '/', 1)))
where starts_with(cause, 'event ');

-- Users wait here to be let into another journey.
create index messages_of_starts on journeys.messages (step) where channel = 'start' and status = 'pending';

-- Lines as clients sent them, and events that journeys emit. A tick takes them in first.
create schema if not exists edge;
create table edge.inbox (
    inbox_id bigint generated always as identity primary key,
    source text not null,
    received_at timestamptz not null default now(),
    line bytea not null
);

-- They take other arguments, or return other columns now.
drop function if exists journeys.goal_reached(text, jsonb, text, timestamptz, timestamptz);
drop function if exists journeys.entering_by_change(text, bigint, boolean);
drop function if exists journeys.entering_as_member(text, bigint, timestamptz);
drop function if exists journeys.entering_by_event(text, jsonb, text, bigint, timestamptz, timestamptz);
drop function if exists upnext.passes(jsonb, jsonb);
