-- The reason to send nothing to a user, or to an address, in a channel; null where there is none. A bounce stops only
-- the address, because the user may have another by now. A transactional message goes to those who unsubscribed, too.
create or replace function journeys.suppressed_by(
    in_channel text, to_user text, to_address text, is_transactional boolean
) returns text
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
    where not is_transactional or reason <> 'unsubscribed'
    order by since
    limit 1
);

-- The time zone of a user by a trait of the user or else of the account, as of an instant; UTC where none is known.
create or replace function journeys.time_zone_of(of_user text, trait text, at timestamptz) returns text
language plpgsql stable as $$
declare
    zone text;
    of_account text;
begin
    select events.properties ->> trait into zone
    from events.user_events as events
    where
        events.user_id = of_user and events.type = 'identify' and events.occurred_at <= at
        and upnext.is_time_zone(events.properties ->> trait)
    order by events.occurred_at desc, events.source collate "C" desc, events.message_id collate "C" desc
    limit 1;
    if zone is null then
        select user_accounts.account_id into of_account from features.user_accounts
        where user_accounts.user_id = of_user;
        select accounts.properties ->> trait into zone
        from raw.events as accounts
        where
            accounts.type = 'group' and accounts.account_id = of_account and accounts.occurred_at <= at
            and upnext.is_time_zone(accounts.properties ->> trait)
        order by accounts.occurred_at desc
        limit 1;
    end if;
    return zone;
end
$$;

-- Consent events about messages, from the moment they are loaded: those of some loads, or about some messages. To
-- unsubscribe from a message of a topic is to unsubscribe from the topic, unless the user says `all`.
create or replace function journeys.consent_events(of_loads bigint [], of_messages text []) returns table (
    event text, message_id text, kind text, occurred_at timestamptz, load_id bigint, topic text, source text
)
language plpgsql stable as $$
begin
    return query
    with said as materialized (
        select events.event, events.properties, events.occurred_at, events.load_id
        from raw.events
        where
            events.event in ('message unsubscribed', 'message bounced', 'message complained', 'message resubscribed')
            and events.load_id = any(of_loads)
        union all
        select events.event, events.properties, events.occurred_at, events.load_id
        from raw.events
        where
            events.event in ('message unsubscribed', 'message bounced', 'message complained', 'message resubscribed')
            and events.properties ->> 'message_id' = any(of_messages)
    )

    select
        said.event,
        said.properties ->> 'message_id',
        said.properties ->> 'kind',
        said.occurred_at,
        said.load_id,
        case
            when
                said.event in ('message unsubscribed', 'message resubscribed')
                and said.properties ->> 'all' is distinct from 'true'
                then coalesce(said.properties ->> 'topic', steps.definition ->> 'topic')
        end,
        said.properties ->> 'source'
    from said
    left join journeys.messages on messages.message_id = said.properties ->> 'message_id'
    left join journeys.entries on entries.entry_id = messages.entry_id
    left join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step;
end $$;

-- What users say about topics, from the moment it is loaded: by a message, or in the product itself.
create or replace function journeys.topic_events(of_loads bigint []) returns table (
    user_id text, topic text, is_granted boolean, source text, occurred_at timestamptz, load_id bigint
)
language plpgsql stable as $$
begin
    return query
    with said as materialized (
        select events.user_id, events.event, events.properties, events.occurred_at, events.load_id
        from raw.events
        where
            events.event in ('topic subscribed', 'topic unsubscribed')
            and events.user_id is not null
            -- An index holds the topic, and no topic is declared under so long a name.
            and octet_length(events.properties ->> 'topic') <= 200
            and events.load_id = any(of_loads)
    )

    select
        messages.user_id,
        about.topic,
        about.event = 'message resubscribed',
        coalesce(about.source, about.event),
        about.occurred_at,
        about.load_id
    from journeys.consent_events(of_loads, null) as about
    inner join journeys.messages on messages.message_id = about.message_id
    where octet_length(about.topic) <= 200
    union all
    select
        said.user_id,
        said.properties ->> 'topic',
        said.event = 'topic subscribed',
        coalesce(said.properties ->> 'source', said.event),
        -- A clock that is ahead, or lies, would keep the user's later words from being heard.
        least(said.occurred_at, loads.loaded_at),
        said.load_id
    from said
    inner join raw.loads on loads.load_id = said.load_id;
end $$;

-- The event that let a user into a journey.
create or replace function journeys.trigger_of(of_source text, of_id text) returns table (properties jsonb)
language plpgsql stable rows 1
as $$
begin
    return query
    select events.properties from raw.events where events.source = of_source and events.message_id = of_id;
end $$;

-- The traits of a user at an instant: the newest value of each.
create or replace function journeys.traits_of(of_user text, at_instant timestamptz) returns table (traits jsonb)
language plpgsql stable rows 1
as $$
begin
    return query
    select coalesce(
        jsonb_object_agg(
            traits.key, traits.value
            order by events.occurred_at, events.source collate "C", events.message_id collate "C"
        ),
        '{}'
    )
    from events.user_events as events
    cross join lateral jsonb_each(events.properties) as traits
    where events.user_id = of_user and events.type = 'identify' and events.occurred_at <= at_instant;
end $$;

-- The first event that a question asks for, after `since` and up to an instant; no row where there is none.
create or replace function journeys.heard(
    of_user text, of_key text, of_entry bigint, question jsonb, since timestamptz, up_to timestamptz
) returns table (event text, occurred_at timestamptz)
language plpgsql stable rows 1
as $$
declare
    names text [];
    is_of_step boolean;
    of_message text;
begin
    -- Whoever has just entered has done nothing since; a look-up takes many times as long as this.
    if up_to <= since then
        return;
    end if;
    names := array(select jsonb_array_elements_text(nullif(question -> 'any_of', 'null')));
    is_of_step := question ->> 'of_step' is not null;
    of_message := case when is_of_step then journeys.newest_message(of_entry, question ->> 'of_step') end;
    return query
    select events.event, events.occurred_at
    from events.user_events as events
    where
        events.user_id = of_user
        and events.event = any(names)
        and upnext.is_asked_for(
            events.properties, events.context, question, case when not is_of_step then of_key end
        )
        and events.occurred_at > since
        and events.occurred_at <= up_to
        and (
            not is_of_step
            or events.properties ->> 'message_id' = of_message
            and events.properties ->> 'machine' is distinct from 'true'
        )
    order by events.occurred_at
    limit 1;
end $$;

-- When a user first was a member of a segment, after `since` and up to an instant: `since` itself for a member by then.
create or replace function journeys.joined(
    of_user text, of_segment text, since timestamptz, up_to timestamptz
) returns table (occurred_at timestamptz)
language sql stable rows 1
as $$
    select greatest(entered.as_of, since)
    from segments.published_changes as entered
    where
        entered.segment = of_segment
        and entered.user_id = of_user
        and entered.change = 'entered'
        and entered.as_of <= up_to
        and not exists (
            select from segments.published_changes as exited
            where
                exited.segment = of_segment
                and exited.user_id = of_user
                and exited.change = 'exited'
                and exited.change_id > entered.change_id
                and exited.as_of <= since
        )
    order by entered.change_id
    limit 1
$$;

-- Whether the traits and the features of a user meet the conditions of a question.
create or replace function journeys.is_like(of_user text, question jsonb, at_instant timestamptz)
returns table (is_so boolean)
language sql stable rows 1
as $$
    select
        (
            jsonb_typeof(question -> 'user') is distinct from 'object'
            or (
                select upnext.holds(traits.traits, question -> 'user')
                from journeys.traits_of(of_user, at_instant) as traits
            )
        )
        and (
            jsonb_typeof(question -> 'features') is distinct from 'object'
            or coalesce((
                select upnext.holds(to_jsonb(user_features), question -> 'features')
                from features.user_features
                where user_features.user_id = of_user
            ), false)
        )
$$;

-- Whether all that a question asks for is so: events since an instant, membership, traits, features, the trigger.
create or replace function journeys.answers(
    of_user text, of_key text, of_entry bigint, of_source text, of_id text, question jsonb, since timestamptz,
    up_to timestamptz
) returns table (is_so boolean)
language sql stable rows 1
as $$
    select
        (
            question ->> 'any_of' is null
            or exists (select from journeys.heard(of_user, of_key, of_entry, question, since, up_to))
        )
        and (
            question ->> 'segment' is null
            or exists (
                select from segments.members
                where members.segment = question ->> 'segment' and members.user_id = of_user
            )
        )
        and (
            jsonb_typeof(question -> 'event') is distinct from 'object'
            or coalesce((
                select upnext.holds(trigger.properties, question -> 'event')
                from journeys.trigger_of(of_source, of_id) as trigger
            ), false)
        )
        and alike.is_so
    from journeys.is_like(of_user, question, up_to) as alike
$$;

-- When what a wait asks for was first so, since the wait began and up to an instant; no row where it was not. A message
-- may have been opened before. What is asked of traits and features is known as of now alone.
create or replace function journeys.answered_at(
    of_user text, of_key text, of_entry bigint, question jsonb, entered timestamptz, begun timestamptz,
    up_to timestamptz
) returns table (occurred_at timestamptz)
language sql stable rows 1
as $$
    select greatest(heard.occurred_at, begun)
    from journeys.heard(
        of_user, of_key, of_entry, question, case when question ->> 'of_step' is null then begun else entered end, up_to
    ) as heard
    where question ->> 'any_of' is not null
    union all
    select joined.occurred_at
    from journeys.joined(of_user, question ->> 'segment', begun, up_to) as joined
    where question ->> 'segment' is not null
    union all
    select up_to
    from journeys.is_like(of_user, question, up_to) as alike
    where question ->> 'any_of' is null and question ->> 'segment' is null and alike.is_so
$$;

-- What reached the goal of a journey, and when: first within its time, and up to an instant; no row where nothing did.
create or replace function journeys.goal_reached(
    of_user text, of_key text, goal jsonb, since timestamptz, up_to timestamptz
) returns table (event text, occurred_at timestamptz)
language sql stable rows 1
as $$
    select heard.event, heard.occurred_at
    from journeys.heard(
        of_user, of_key, null, goal, since, least(up_to, since + cast(goal ->> 'within' as interval))
    ) as heard
    union all
    select 'entered ' || cast(goal ->> 'segment' as text), joined.occurred_at
    from journeys.joined(
        of_user, goal ->> 'segment', since, least(up_to, since + cast(goal ->> 'within' as interval))
    ) as joined
    where goal ->> 'segment' is not null and joined.occurred_at > since
    union all
    select 'features', up_to
    from journeys.is_like(of_user, goal, up_to) as alike
    where
        jsonb_typeof(goal -> 'features') = 'object'
        and alike.is_so
        and up_to > since
        and up_to <= since + cast(goal ->> 'within' as interval)
$$;

-- The reason of the first rule that ends an entry beside the goal; no row where none does. In plpgsql because few
-- journeys have rules: the planner would inline a SQL function into the claim of every message.
create or replace function journeys.exit_of(
    of_user text, of_key text, of_entry bigint, of_source text, of_id text, rules jsonb, since timestamptz,
    up_to timestamptz
) returns table (reason text)
language plpgsql stable rows 1
as $$
begin
    return query
    select coalesce(
        each.rule ->> 'reason',
        'exit: ' || nullif(
            array_to_string(array(select jsonb_array_elements_text(nullif(each.rule -> 'any_of', 'null'))), ', '), ''
        ),
        'exit'
    )
    from jsonb_array_elements(nullif(rules, 'null')) with ordinality as each (rule, nth)
    cross join lateral journeys.answers(of_user, of_key, of_entry, of_source, of_id, each.rule, since, up_to) as answer
    where answer.is_so
    order by each.nth
    limit 1;
end
$$;

-- The instant that a delay ends at, or that it ended at before it was reached; null for a date that is missing or none.
create or replace function journeys.end_of_delay(
    of_user text, of_source text, of_id text, until jsonb, reached timestamptz, trait text, default_zone text,
    at_instant timestamptz
) returns timestamptz
language sql stable
as $$
select case
    when until ->> 'at' is not null then (
        select min(instants.instant)
        from (
            select coalesce(journeys.time_zone_of(of_user, trait, at_instant), default_zone) as zone
        ) as clock
        cross join generate_series(0, 8) as days (number)
        cross join lateral (
            select (reached at time zone clock.zone)::date + days.number as day
        ) as calendar
        cross join lateral (
            select (calendar.day + (until ->> 'at')::time) at time zone clock.zone as instant
        ) as instants
        where
            instants.instant > reached
            and (
                jsonb_typeof(until -> 'days') is distinct from 'array'
                or until -> 'days' ? lower(to_char(calendar.day, 'FMdy'))
            )
    )
    when until ->> 'date' is not null
        then cast(until ->> 'date' as timestamp)
        at time zone coalesce(journeys.time_zone_of(of_user, trait, at_instant), default_zone)
    else upnext.instant(case
        when until ->> 'user' is not null then (
            select traits.traits #> string_to_array(until ->> 'user', '.')
            from journeys.traits_of(of_user, at_instant) as traits
        )
        when until ->> 'event' is not null then (
            select trigger.properties #> string_to_array(until ->> 'event', '.')
            from journeys.trigger_of(of_source, of_id) as trigger
        )
        else (
            select to_jsonb(user_features) -> (until ->> 'feature')
            from features.user_features
            where user_features.user_id = of_user
        )
    end)
    - coalesce(cast(until ->> 'before' as interval), '0')
    + coalesce(cast(until ->> 'after' as interval), '0')
end
$$;

-- Whether a step limits the hours at which its messages may be sent.
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
    cap_interval interval,
    opt_out_topics text []
) returns table (reason text)
language sql stable rows 1
as $$
    select
        case
            when entries.status in ('converted', 'left', 'excluded') then entries.status
            when suppressed.reason is not null then suppressed.reason
            when not consents.is_granted then 'unsubscribed from ' || consents.topic
            -- A topic that nobody declares any more may have been one that users must choose.
            when
                consents.topic is null
                and steps.definition ->> 'topic' is not null
                and steps.definition ->> 'topic' <> all(opt_out_topics)
                then 'has not subscribed to ' || cast(steps.definition ->> 'topic' as text)
            when messages.channel = 'webhook' and exists (
                select from journeys.disabled_endpoints
                where disabled_endpoints.endpoint = steps.definition ->> 'endpoint'
            ) then 'endpoint is gone'
            when definitions.definition -> 'goal' ->> 'then' is distinct from 'continue' and exists (
                select
                from journeys.goal_reached(
                    messages.user_id, entries.key, definitions.definition -> 'goal', entries.entered_at, at_instant
                )
            ) then 'converted'
            when definitions.definition -> 'exits' -> 0 is not null and exists (
                select
                from journeys.exit_of(
                    messages.user_id, entries.key, entries.entry_id, entries.trigger_source, entries.trigger_id,
                    definitions.definition -> 'exits', entries.entered_at, at_instant
                )
            ) then 'left'
            when
                steps.late = 'skip' and messages.attempts = 0 and not messages.is_limited
                and at_instant
                    > greatest(messages.due_at, messages.not_before) + late_beyond
                then 'late'
            when messages.channel = any(of_channels) and not messages.is_transactional and (
                select count(*) from journeys.messages as others
                where
                    others.user_id = messages.user_id
                    and others.channel = any(of_channels)
                    and not others.is_transactional
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
    left join journeys.consents
        on consents.user_id = messages.user_id and consents.topic = steps.definition ->> 'topic'
    cross join journeys.suppressed_by(
        messages.channel, messages.user_id, to_address, messages.is_transactional
    ) as suppressed (reason)
    where messages.message_id = of_message
    -- Keeps the planner from joining all messages with each other where it asks for many.
    offset 0
$$;

-- Whether a journey has sent as many messages as it may in the time that its rate names.
create or replace function journeys.is_full(of_journey text, at_instant timestamptz) returns boolean
language sql stable
return exists (
    select from journeys.limits
    where
        limits.journey = of_journey
        and limits.most <= (
            select count(*) from journeys.messages
            where
                messages.is_limited
                and messages.journey = of_journey
                and (
                    messages.status = 'sending'
                    or messages.status in ('sent', 'unknown') and messages.sent_at > at_instant - limits.per
                )
        )
);

-- Whether a message that a step asks about still waits, or is being sent: the step waits with it.
create or replace function journeys.is_asked_too_early(entry bigint, of_steps text []) returns boolean
language sql stable
as $$
    select exists (
        select from journeys.messages as asked
        where asked.entry_id = entry and asked.step = any(of_steps) and asked.status in ('pending', 'sending')
    )
$$;

-- Pending messages of a channel whose own times allow sending now: the transactional ones, or the others.
create or replace function journeys.due_messages(
    in_channel text, of_journeys text [], at_instant timestamptz, are_transactional boolean
)
returns setof journeys.messages
language sql stable
as $$
    select messages.* from journeys.messages
    where
        messages.status = 'pending'
        and messages.is_transactional = are_transactional
        and messages.channel = in_channel
        and messages.journey = any(of_journeys)
        and (messages.not_before is null or messages.not_before <= at_instant)
        and (messages.retry_at is null or messages.retry_at <= clock_timestamp())
        and messages.journey not in (select journey from journeys.pauses)
        and not (messages.is_limited and journeys.is_full(messages.journey, at_instant))
$$;

-- Users who enter a journey because they entered its segment in a tick.
create or replace function journeys.entering_by_change(of_segment text, in_tick bigint, is_enrolling_members boolean)
returns table (
    user_id text, entered_at timestamptz, cause text, change_id bigint, key text, trigger_source text, trigger_id text
)
language sql stable
as $$
    select
        changes.user_id,
        changes.as_of as entered_at,
        'change ' || changes.change_id as cause,
        changes.change_id,
        null,
        null,
        null
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
                on exits.user_id = upnext.person(links.kind, links.id)
                and exits.segment = changes.segment and exits.tick_id = changes.tick_id
            where
                links.user_id = changes.user_id and exits.user_id <> changes.user_id and exits.change = 'exited'
        )
$$;

-- Members who enter at a journey's first dispatch. Earlier changes have no effect.
create or replace function journeys.entering_as_member(of_segment text, up_to_tick bigint, at_instant timestamptz)
returns table (
    user_id text, entered_at timestamptz, cause text, change_id bigint, key text, trigger_source text, trigger_id text
)
language sql stable
as $$
    select
        members.user_id,
        at_instant as entered_at,
        'change ' || latest.change_id as cause,
        latest.change_id,
        null,
        null,
        null
    from segments.members
    cross join lateral (
        select max(change_id) as change_id from segments.membership_changes as changes
        where changes.segment = members.segment and changes.user_id = members.user_id and changes.tick_id <= up_to_tick
    ) as latest
    where members.segment = of_segment
$$;

-- The key of a run. An index holds it, so that a value of a thousand bytes is none.
create or replace function journeys.key_in(properties jsonb, keyed_by text) returns text
language sql immutable parallel safe
return case
    when octet_length(properties #>> string_to_array(keyed_by, '.')) <= 1000
        then properties #>> string_to_array(keyed_by, '.')
end;

-- Users who enter by an event that was loaded, or occurred, since the last dispatch.
create or replace function journeys.entering_by_event(
    of_journey text, entry jsonb, keyed_by text, since_tick bigint, since_instant timestamptz, up_to timestamptz
) returns table (
    user_id text, entered_at timestamptz, cause text, change_id bigint, key text, trigger_source text, trigger_id text
)
language plpgsql stable
as $$
declare
    names text [] := array(select jsonb_array_elements_text(entry -> 'any_of'));
    loads bigint [] := array(select raw.loads_since(since_tick));
    begun timestamptz := (
        select coalesce(consumer_offsets.begun_at, '-infinity') from segments.consumer_offsets
        where consumer_offsets.consumer = 'journey:' || of_journey
    );
begin
    return query
    with did as materialized (
        select events.user_id, events.occurred_at, events.source, events.message_id, events.properties
        from events.user_events as events
        where
            events.event = any(names)
            and upnext.is_asked_for(events.properties, events.context, entry, null)
            and not upnext.is_visitor(events.user_id)
            and events.occurred_at > begun
            and events.occurred_at <= up_to
            and (events.load_id = any(loads) or events.occurred_at > since_instant)
    )

    select
        did.user_id,
        did.occurred_at,
        'event ' || did.source || '/' || did.message_id,
        cast(null as bigint),
        journeys.key_in(did.properties, keyed_by),
        did.source,
        did.message_id
    from did
    -- Loaded while a tick linked their id; the next one gives them to whose they are.
    where not exists (
        select from events.identity_links as links
        where links.kind = 'user' and links.id = did.user_id and links.user_id is not null
    );
end $$;

-- Users who wait to be let in, because a step of another journey starts this one. They keep the event of that journey,
-- and its value of `keyed_by` is the key of the run.
create or replace function journeys.entering_by_start(of_journey text, keyed_by text)
returns table (
    user_id text, entered_at timestamptz, cause text, change_id bigint, key text, trigger_source text, trigger_id text
)
language sql stable
as $$
    select
        messages.user_id,
        messages.due_at,
        'message ' || messages.message_id,
        cast(null as bigint),
        journeys.key_in(trigger.properties, keyed_by),
        entries.trigger_source,
        entries.trigger_id
    from journeys.messages
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
    left join lateral journeys.trigger_of(entries.trigger_source, entries.trigger_id) as trigger on true
    where
        messages.channel = 'start' and messages.status = 'pending' and steps.definition ->> 'journey' = of_journey
$$;
