-- What the links of messages read and write.

-- name: message
select messages.user_id, messages.sent_at, links.url
from journeys.messages
left join journeys.links on links.link_id = :link_id
where messages.message_id = :message_id;

-- name: unsubscribe
-- What is said to a message of a topic concerns that topic alone, unless it is said of all. The line and what it stops
-- are written together: a word that waited for the next tick would let one more mail out.
with told as (
    select
        messages.user_id, messages.channel, coalesce(messages.address, '') as address,
        case when not cast(:is_of_all as boolean) then steps.definition ->> 'topic' end as topic
    from journeys.messages
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
    where messages.message_id = :message_id
),

stopped as (
    insert into journeys.suppressions (user_id, channel, address, reason, source, since)
    select user_id, channel, address, 'unsubscribed', :source, :now from told
    where topic is null
    on conflict (user_id, channel, address) do update
    set reason = excluded.reason, source = excluded.source, since = excluded.since
    where suppressions.reason = 'bounced'
),

refused as (
    insert into journeys.consents as known (user_id, topic, is_granted, source, since)
    select user_id, topic, false, :source, :now from told
    where topic is not null
    on conflict (user_id, topic) do update
    set is_granted = false, source = excluded.source, since = greatest(excluded.since, known.since)
    where known.is_granted
)

insert into edge.inbox (source, received_at, line)
select 'upnext', :now, :line from told
returning inbox_id;

-- name: preferences
-- What a user has said about topics, and whether no mail goes there at all.
select
    messages.user_id,
    coalesce(
        (
            select jsonb_object_agg(consents.topic, consents.is_granted) from journeys.consents
            where consents.user_id = messages.user_id
        ),
        '{}'
    ) as said,
    exists (
        select from journeys.suppressions
        where
            suppressions.user_id = messages.user_id and suppressions.channel = messages.channel
            and suppressions.reason = 'unsubscribed'
    ) as is_stopped
from journeys.messages
where messages.message_id = :message_id;

-- name: choose
with chosen as (
    insert into journeys.consents as known (user_id, topic, is_granted, source, since)
    values (:user_id, :topic, :is_granted, 'preferences', :now)
    on conflict (user_id, topic) do update
    set is_granted = excluded.is_granted, source = excluded.source, since = greatest(excluded.since, known.since)
)

insert into edge.inbox (source, received_at, line) values ('upnext', :now, :line);

-- name: resubscribe
-- Lifts what the user has said, not that an address is dead, nor what other users of the address have said.
with told as (
    select messages.user_id, messages.channel from journeys.messages
    where messages.message_id = :message_id
),

lifted as (
    delete from journeys.suppressions
    using told
    where
        suppressions.user_id = told.user_id
        and suppressions.channel = told.channel
        and suppressions.reason in ('unsubscribed', 'complained')
)

insert into edge.inbox (source, received_at, line)
select 'upnext', :now, :line from told
returning inbox_id;

-- name: hear
-- What a provider tells of messages, as lines for the drain, and what that stops, together: a bounce that waited for
-- the next tick would let one more mail out. A soft bounce stops nothing.
with told as (
    select distinct on (messages.user_id, messages.channel, heard.event)
        messages.user_id, messages.channel, coalesce(messages.address, '') as address, heard.event,
        case when heard.event = 'message unsubscribed' then steps.definition ->> 'topic' end as topic
    from unnest(cast(:events as text []), cast(:messages as text []), cast(:kinds as text []))
        as heard (event, message_id, kind)
    inner join journeys.messages on messages.message_id = heard.message_id
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
    where
        heard.event in ('message complained', 'message unsubscribed')
        or (heard.event = 'message bounced' and heard.kind is distinct from 'soft')
    order by messages.user_id, messages.channel, heard.event
),

stopped as (
    insert into journeys.suppressions (user_id, channel, address, reason, source, since)
    select distinct on (user_id, channel, address)
        user_id, channel, address, replace(event, 'message ', ''), :provider, :now
    from told
    where topic is null
    order by user_id, channel, address, event = 'message bounced'
    on conflict (user_id, channel, address) do update
    set reason = excluded.reason, source = excluded.source, since = excluded.since
    where suppressions.reason = 'bounced'
),

refused as (
    insert into journeys.consents as known (user_id, topic, is_granted, source, since)
    select distinct user_id, topic, false, :provider, cast(:now as timestamptz) from told
    where topic is not null
    on conflict (user_id, topic) do update
    set is_granted = false, source = excluded.source, since = greatest(excluded.since, known.since)
    where known.is_granted
)

insert into edge.inbox (source, received_at, line)
select :source, :now, line
from unnest(cast(:lines as bytea [])) as told_lines (line)
returning inbox_id;

-- name: mail
-- What a mail was made of: the traits of its reader are those of then, the features those of now.
select
    messages.message_id,
    messages.journey,
    messages.user_id,
    messages.variant,
    coalesce(messages.sent_at, messages.due_at) as sent_at,
    steps.definition as step,
    traits.traits,
    to_jsonb(user_features) as features,
    trigger.properties as event,
    (
        select jsonb_object_agg(answered.step, answered.answer order by answered.visit)
        from journeys.messages as answered
        where answered.entry_id = messages.entry_id and answered.answer is not null
    ) as answers
from journeys.messages
inner join journeys.entries on entries.entry_id = messages.entry_id
inner join journeys.steps
    on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
left join features.user_features on user_features.user_id = messages.user_id
left join lateral journeys.trigger_of(entries.trigger_source, entries.trigger_id) as trigger on true
cross join lateral journeys.traits_of(messages.user_id, coalesce(messages.sent_at, messages.due_at)) as traits
where
    messages.message_id = :message_id
    and messages.channel = 'email'
    and messages.status in ('sending', 'sent', 'unknown');
