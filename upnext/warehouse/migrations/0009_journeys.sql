-- Up to which instant a consumer has looked at events, beside the tick of the changes that it has acted on.
alter table segments.consumers add column as_of timestamptz;

-- Whose activity became another's, or who took it over, by the tick that found it out.
create table segments.moved_users (
    tick_id bigint not null references segments.ticks,
    user_id text not null,
    primary key (tick_id, user_id)
);

-- The steps of each version, as the dispatch reads them: where each leads (`next`, and `otherwise` where a wait runs
-- out or a branch is not taken; null is the end) and when it is due.
create table journeys.steps (
    journey text not null,
    version text not null,
    step text not null,
    position integer not null,
    kind text not null check (kind in ('email', 'webhook', 'cta', 'wait', 'branch')),
    next text,
    otherwise text,
    after interval,
    wait interval,
    within interval,
    any_of text [],
    late text check (late in ('send', 'skip', 'shift')),
    variants jsonb,
    definition jsonb not null,
    primary key (journey, version, step),
    foreign key (journey, version) references journeys.definitions
);

-- Definitions of before, in today's words.
update journeys.definitions
set definition = jsonb_set(
    definition,
    '{steps}',
    (
        select jsonb_agg((steps.step - 'channel') || jsonb_build_object('do', steps.step -> 'channel') order by position)
        from jsonb_array_elements(definition -> 'steps') with ordinality as steps (step, position)
    )
);

-- dbt makes these anew; they hold on to columns that go.
drop view if exists analytics.journey_steps, analytics.experiment_users, analytics.experiment_moments cascade;

-- `cause` is what let the user in: a membership change, or an event. `shifted` is how far pauses and lateness have put
-- off what follows.
alter table journeys.entries
    add column cause text,
    add column step text,
    add column reached_at timestamptz,
    add column is_woken boolean not null default false,
    add column shifted interval not null default '0',
    add column goal_reached_at timestamptz,
    add column is_in_both_arms boolean not null default false;
update journeys.entries
set
    cause = 'change ' || change_id,
    reached_at = entered_at,
    goal_reached_at = case when status = 'converted' then ended_at end,
    step = (
        select definitions.definition -> 'steps' -> (entries.next_step - 1) ->> 'name'
        from journeys.definitions
        where definitions.journey = entries.journey and definitions.version = entries.version
    );
alter table journeys.entries
    drop column next_step,
    drop constraint entries_journey_change_id_key,
    alter column cause set not null,
    alter column reached_at set not null,
    alter column change_id drop not null,
    add unique (journey, cause);
drop index journeys.entries_due;
create index entries_due on journeys.entries (journey, next_due_at) where ended_at is null;
create index entries_at_the_end on journeys.entries (journey) where status = 'active' and next_due_at is null;
drop index journeys.entries_by_user;
create index entries_by_user on journeys.entries (user_id, journey, entered_at);

-- A step can come round again. `not_before` is when the user's own clock allows it; `retry_at`, like the lease, is by
-- the clock of the database.
alter table journeys.messages
    add column visit integer not null default 1,
    add column not_before timestamptz,
    add column retry_at timestamptz,
    drop constraint messages_entry_id_step_key,
    add unique (entry_id, step, visit);
drop index journeys.messages_by_user;
create index messages_by_user on journeys.messages (user_id, sent_at);

-- What stops a message at once, and what an account says of itself.
drop index raw.events_of_consent;
create index events_of_consent on raw.events ((properties ->> 'message_id'))
where event in ('message unsubscribed', 'message bounced', 'message complained');
create index events_of_accounts on raw.events (account_id, occurred_at) where type = 'group';

create table journeys.pauses (
    journey text primary key,
    paused_at timestamptz not null
);

-- Where clicks lead; a link in a message names one of these, never an address.
create table journeys.links (
    link_id text primary key,
    url text not null
);

-- Endpoints that have said that they are gone.
create table journeys.endpoints (
    endpoint text primary key,
    disabled_at timestamptz not null,
    reason text not null
);

-- Whether a value passes the test of a branch: one of equals, at_least, at_most.
create function upnext.passes(value jsonb, test jsonb) returns boolean
language sql immutable parallel safe
return coalesce(
    case
        when test ->> 'equals' is not null then value = test -> 'equals'
        when test ->> 'at_least' is not null then upnext.number(value) >= upnext.number(test -> 'at_least')
        when test ->> 'at_most' is not null then upnext.number(value) <= upnext.number(test -> 'at_most')
    end,
    false
);

create function upnext.is_time_zone(name text) returns boolean
language plpgsql stable parallel safe as $$
begin
    perform now() at time zone name;
    return name ~ '^[A-Za-z]';
exception when invalid_parameter_value then
    return false;
end $$;

-- Whether a clock shows a time between `hours.from` and `hours.to`; where these are equal, always.
create function upnext.is_within(clock time, hours jsonb) returns boolean
language sql immutable parallel safe
return case
    when hours ->> 'from' < hours ->> 'to' then clock >= (hours ->> 'from')::time and clock < (hours ->> 'to')::time
    else clock >= (hours ->> 'from')::time or clock < (hours ->> 'to')::time
end;

-- The first instant from `at` on that lies in the send window and out of the quiet hours (null: any time) by the clock
-- of a time zone: `at` itself, or a beginning of the window, or an end of the quiet hours.
create function upnext.first_allowed(at timestamptz, zone text, send_window jsonb, quiet_hours jsonb) returns timestamptz
language sql stable parallel safe
return case when send_window is null and quiet_hours is null then at else (
    select min(candidates.instant)
    from (
        select at as instant
        union all
        select (((at at time zone zone)::date + days.number) + clocks.clock) at time zone zone
        from generate_series(-1, 8) as days (number)
        cross join (
            select (send_window ->> 'from')::time as clock union all select (quiet_hours ->> 'to')::time
        ) as clocks
    ) as candidates
    cross join lateral (select candidates.instant at time zone zone as wall) as local
    where
        candidates.instant >= at
        and (
            send_window is null
            or (
                upnext.is_within(local.wall::time, send_window)
                -- Past midnight, the window belongs to the day on which it began.
                and send_window -> 'days' ? lower(to_char(
                    local.wall - case
                        when send_window ->> 'from' >= send_window ->> 'to' and local.wall::time < (send_window ->> 'from')::time
                            then interval '1 day'
                        else interval '0'
                    end,
                    'FMdy'
                ))
            )
        )
        and (quiet_hours is null or not upnext.is_within(local.wall::time, quiet_hours))
) end;

-- Whoever was of two arms and is one person by a merge.
alter table experiences.assignments add column is_in_both_arms boolean not null default false;

create or replace view experiences.live_ctas as
with clock as (
    select max(as_of) as as_of from segments.ticks where published_at is not null
),

offers as (
    select
        assignments.user_id,
        definitions.definition ->> 'surface' as surface,
        definitions.definition ->> 'slot' as slot,
        assignments.experience as source,
        'experience' as source_kind,
        assignments.variant,
        definitions.definition -> 'variants' -> assignments.variant ->> 'copy' as copy,
        definitions.definition -> 'variants' -> assignments.variant ->> 'url' as url,
        greatest(assignments.assigned_at, members.entered_at) as starts_at,
        null::timestamptz as ends_at,
        (definitions.definition ->> 'priority')::integer as priority
    from experiences.assignments
    inner join experiences.definitions on definitions.experience = assignments.experience
    inner join segments.current_members as members
        on members.segment = definitions.definition ->> 'segment' and members.user_id = assignments.user_id
    union all
    select
        messages.user_id,
        steps.definition ->> 'surface' as surface,
        steps.definition ->> 'slot' as slot,
        messages.journey as source,
        'journey' as source_kind,
        coalesce(messages.variant, messages.step) as variant,
        coalesce(steps.definition -> 'variants' -> messages.variant ->> 'copy', steps.definition ->> 'copy') as copy,
        coalesce(steps.definition -> 'variants' -> messages.variant ->> 'url', steps.definition ->> 'url') as url,
        messages.sent_at as starts_at,
        messages.ends_at,
        1000 as priority
    from journeys.messages
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.definitions
        on definitions.journey = entries.journey and definitions.version = entries.version
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
    cross join clock
    where
        messages.channel = 'cta'
        and messages.status = 'sent'
        and entries.status in ('active', 'completed')
        and messages.ends_at > clock.as_of
        and (
            not cast(definitions.definition ->> 'exit_on_leaving' as boolean)
            or exists (
                select from segments.current_members as members
                where members.segment = definitions.definition ->> 'segment' and members.user_id = messages.user_id
            )
        )
)

select distinct on (user_id, surface, slot)
    user_id, surface, slot, source, source_kind, variant, copy, url, starts_at, ends_at
from offers
order by user_id, surface, slot, priority desc, source;
