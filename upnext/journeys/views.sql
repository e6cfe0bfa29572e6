-- The reason to send nothing to a user, or to an address, in a channel; null where there is none. A bounce stops only
-- the address, because the user may have another by now.
create or replace function journeys.suppressed_by(in_channel text, to_user text, to_address text) returns text
language sql stable
return (
    select reason
    from (
        select reason, since
        from journeys.suppressions
        where
            user_id = to_user and channel in (in_channel, 'all')
            and (reason <> 'bounced' or address in ('', lower(to_address)))
        union all
        select reason, since
        from journeys.suppressions
        where address = lower(to_address) and address <> '' and channel in (in_channel, 'all')
    ) as found
    order by since
    limit 1
);

-- The time zone of a user by a trait of the user or else of the account, as of an instant; UTC where none is known.
create or replace function journeys.time_zone_of(of_user text, trait text, at timestamptz) returns text
language plpgsql stable as $$
declare
    zone text;
begin
    select events.properties ->> trait into zone
    from events.user_events as events
    where
        events.user_id = of_user and events.type = 'identify' and events.occurred_at <= at
        and upnext.is_time_zone(events.properties ->> trait)
    order by events.occurred_at desc, events.source collate "C" desc, events.message_id collate "C" desc
    limit 1;
    if zone is null then
        select accounts.properties ->> trait into zone
        from features.user_accounts
        inner join raw.events as accounts
            on accounts.type = 'group' and accounts.account_id = user_accounts.account_id
        where
            user_accounts.user_id = of_user and accounts.occurred_at <= at
            and upnext.is_time_zone(accounts.properties ->> trait)
        order by accounts.occurred_at desc
        limit 1;
    end if;
    return zone;
end
$$;

-- Consent events, from the moment they are loaded.
create or replace view journeys.consent_events as
select
    event,
    properties ->> 'message_id' as message_id,
    properties ->> 'kind' as kind,
    occurred_at,
    load_id
from raw.events
where event in ('message unsubscribed', 'message bounced', 'message complained', 'message resubscribed');

-- The first event within the time of the goal of a journey, up to an instant; no row where there is none.
create or replace function journeys.goal_reached(
    of_user text, of_definition jsonb, of_key text, since timestamptz, up_to timestamptz
) returns table (event text, occurred_at timestamptz)
language sql stable rows 1
as $$
    select events.event, events.occurred_at
    from events.user_events as events
    where
        events.user_id = of_user
        and events.event = any(array(select jsonb_array_elements_text(of_definition -> 'goal' -> 'any_of')))
        and (
            of_key is null
            or events.properties #>> string_to_array(of_definition ->> 'keyed_by', '.') = of_key
        )
        and events.occurred_at > since
        and events.occurred_at <= since + cast(of_definition -> 'goal' ->> 'within' as interval)
        and events.occurred_at <= up_to
    order by events.occurred_at
    limit 1
$$;

-- Whether a journey limits the hours at which its messages may be sent.
create or replace function journeys.has_hours(of_definition jsonb) returns boolean
language sql immutable parallel safe
return of_definition -> 'send_window' <> 'null' or of_definition -> 'quiet_hours' <> 'null';

-- The newest message of a step: the one that a wait or a branch asks about.
create or replace function journeys.newest_message(of_entry bigint, of_step text) returns text
language sql stable
return (
    select messages.message_id from journeys.messages
    where messages.entry_id = of_entry and messages.step = of_step
    order by messages.visit desc
    limit 1
);

-- The reason not to send a message, checked when it is prepared and again when it is claimed; null where there is none.
-- The cap counts mails, and offers if the policy includes them. A table function, so that the planner inlines it.
create or replace function journeys.stop_reason(
    of_message text,
    to_address text,
    at_instant timestamptz,
    late_beyond interval,
    of_channels text [],
    most_messages integer,
    cap_interval interval
) returns table (reason text)
language sql stable rows 1
as $$
    select
        case
            when entries.status in ('converted', 'left', 'excluded') then entries.status
            when suppressed.reason is not null then suppressed.reason
            when messages.channel = 'webhook' and exists (
                select from journeys.disabled_endpoints
                where disabled_endpoints.endpoint = steps.definition ->> 'endpoint'
            ) then 'endpoint is gone'
            when definitions.definition -> 'goal' ->> 'then' is distinct from 'continue' and exists (
                select
                from journeys.goal_reached(
                    messages.user_id, definitions.definition, entries.key, entries.entered_at, at_instant
                )
            ) then 'converted'
            when
                steps.late = 'skip' and messages.attempts = 0
                and at_instant
                    > greatest(messages.due_at, messages.not_before) + late_beyond
                then 'late'
            when messages.channel = any(of_channels) and (
                select count(*) from journeys.messages as others
                where
                    others.user_id = messages.user_id
                    and others.channel = any(of_channels)
                    and others.message_id <> messages.message_id
                    and (
                        others.status = 'sending'
                        or others.status in ('sent', 'unknown')
                        and coalesce(others.sent_at, others.due_at)
                            > at_instant - cap_interval
                    )
            ) >= most_messages then 'frequency cap'
        end
    from journeys.messages
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.definitions
        on definitions.journey = entries.journey and definitions.version = entries.version
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
    cross join journeys.suppressed_by(messages.channel, messages.user_id, to_address) as suppressed (reason)
    where messages.message_id = of_message
$$;

-- Pending messages of a channel whose own times allow sending now.
create or replace function journeys.due_messages(in_channel text, of_journeys text [], at_instant timestamptz)
returns setof journeys.messages
language sql stable
as $$
    select messages.* from journeys.messages
    where
        messages.status = 'pending'
        and messages.channel = in_channel
        and messages.journey = any(of_journeys)
        and (messages.not_before is null or messages.not_before <= at_instant)
        and (messages.retry_at is null or messages.retry_at <= clock_timestamp())
        and messages.journey not in (select journey from journeys.pauses)
$$;

-- Users who enter a journey because they entered its segment in a tick.
create or replace function journeys.entering_by_change(of_segment text, in_tick bigint, is_enrolling_members boolean)
returns table (user_id text, entered_at timestamptz, cause text, change_id bigint)
language sql stable
as $$
    select changes.user_id, changes.as_of as entered_at, 'change ' || changes.change_id as cause, changes.change_id
    from segments.membership_changes as changes
    where
        changes.segment = of_segment
        and changes.tick_id = in_tick
        and changes.change = 'entered'
        -- Users admitted by an edit of the segment count as existing members.
        and (
            is_enrolling_members
            or not exists (
                select from segments.evaluations
                left join lateral (
                    select definition from segments.evaluations as others
                    where others.segment = evaluations.segment and others.tick_id < evaluations.tick_id
                    order by others.tick_id desc
                    limit 1
                ) as earlier on true
                where
                    evaluations.segment = of_segment
                    and evaluations.tick_id = in_tick
                    and evaluations.definition is distinct from earlier.definition
            )
        )
        -- A merge admits no users: the survivor of a member counts as a member from the start.
        and not exists (
            select from events.identity_links as links
            inner join segments.membership_changes as exits
                on exits.user_id = links.id and exits.segment = changes.segment and exits.tick_id = changes.tick_id
            where
                links.kind = 'user' and links.user_id = changes.user_id and links.id <> changes.user_id
                and exits.change = 'exited'
        )
$$;

-- Members who enter at a journey's first dispatch. Earlier changes have no effect.
create or replace function journeys.entering_as_member(of_segment text, up_to_tick bigint, at_instant timestamptz)
returns table (user_id text, entered_at timestamptz, cause text, change_id bigint)
language sql stable
as $$
    select
        members.user_id,
        at_instant as entered_at,
        'change ' || latest.change_id as cause,
        latest.change_id
    from segments.members
    cross join lateral (
        select max(change_id) as change_id from segments.membership_changes as changes
        where changes.segment = members.segment and changes.user_id = members.user_id and changes.tick_id <= up_to_tick
    ) as latest
    where members.segment = of_segment
$$;

-- Users who enter by an event that was loaded, or occurred, since the last dispatch.
create or replace function journeys.entering_by_event(
    of_journey text, entry jsonb, keyed_by text, since_tick bigint, since_instant timestamptz, up_to timestamptz
) returns table (user_id text, entered_at timestamptz, cause text, change_id bigint, key text)
language sql stable
as $$
    select
        events.user_id,
        events.occurred_at as entered_at,
        'event ' || events.source || '/' || events.message_id as cause,
        cast(null as bigint) as change_id,
        events.properties #>> string_to_array(keyed_by, '.') as key
    from events.user_events as events
    where
        events.event = any(array(select jsonb_array_elements_text(entry -> 'any_of')))
        and upnext.is_asked_for(events.properties, events.context, entry, null)
        and events.occurred_at <= up_to
        and events.occurred_at > (
            select coalesce(consumer_offsets.begun_at, '-infinity') from segments.consumer_offsets
            where consumer_offsets.consumer = 'journey:' || of_journey
        )
        and (
            events.load_id = any(array(select raw.loads_since(since_tick)))
            or events.occurred_at > since_instant
        )
$$;
