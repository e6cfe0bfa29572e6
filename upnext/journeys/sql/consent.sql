-- Suppressions, from the consent events of messages.

-- name: has_unread_consent
select exists (select from journeys.unread_loads);

-- name: record_consent
-- A consent event acts from the moment it is loaded, whatever its occurred_at. An unsubscription or a complaint stops
-- the user and the address. A bounce stops only the address, so it replaces neither. A later resubscription lifts what
-- the user has said, not a bounce, nor what other users of the address have said. A soft bounce stops nothing. What is
-- said about a topic concerns the user and that topic alone.
with read as (
    delete from journeys.unread_loads returning load_id
),

told as (
    select
        messages.user_id, messages.channel, coalesce(messages.address, '') as address,
        bool_or(events.event = 'message resubscribed') as is_resubscribed
    from journeys.consent_events(array(select load_id from read), null) as events
    inner join journeys.messages on messages.message_id = events.message_id
    where events.topic is null
    group by messages.user_id, messages.channel, coalesce(messages.address, '')
),

consented as (
    insert into journeys.consents as known (user_id, topic, is_granted, source, since)
    select distinct on (resolved.user_id, events.topic)
        resolved.user_id, events.topic, events.is_granted, events.source, events.occurred_at
    from journeys.topic_events(array(select load_id from read)) as events
    left join events.identity_links as links on links.kind = 'user' and links.id = events.user_id
    cross join lateral (select coalesce(links.user_id, events.user_id) as user_id) as resolved
    order by resolved.user_id, events.topic, events.occurred_at desc, events.is_granted
    on conflict (user_id, topic) do update
    set is_granted = excluded.is_granted, source = excluded.source, since = excluded.since
    where (excluded.since, not excluded.is_granted) > (known.since, not known.is_granted)
),

latest as (
    select told.user_id, told.channel, told.address, told.is_resubscribed, said.event, said.source, said.occurred_at
    from told
    cross join lateral (
        select event, source, occurred_at
        from (
            select
                events.event,
                events.source,
                events.occurred_at,
                max(events.occurred_at) filter (where events.event = 'message resubscribed') over ()
                    as resubscribed_at
            from journeys.consent_events(null, array(
                select messages.message_id from journeys.messages
                where messages.user_id = told.user_id and messages.channel = told.channel
                union
                select messages.message_id from journeys.messages
                where messages.address = told.address and messages.channel = told.channel
            )) as events
            where events.kind is distinct from 'soft' and events.topic is null
        ) as heard
        where event = 'message resubscribed' or occurred_at >= coalesce(resubscribed_at, '-infinity')
        order by event = 'message resubscribed', event = 'message bounced', occurred_at desc
        limit 1
    ) as said
),

-- An older resubscription that another clock has dated later lifts nothing.
lifted as (
    delete from journeys.suppressions
    using latest
    where
        latest.event = 'message resubscribed'
        and latest.is_resubscribed
        and suppressions.user_id = latest.user_id
        and suppressions.channel = latest.channel
        and suppressions.reason in ('unsubscribed', 'complained')
)

insert into journeys.suppressions (user_id, address, channel, reason, source, since)
select user_id, address, channel, replace(event, 'message ', ''), coalesce(source, event), occurred_at
from latest
where event <> 'message resubscribed'
on conflict (user_id, channel, address) do update
set reason = excluded.reason, source = excluded.source, since = excluded.since
where suppressions.reason = 'bounced';

-- name: suppress
insert into journeys.suppressions (user_id, channel, address, reason, source, since)
values (:user_id, :channel, lower(:address), 'bounced', 'answer of the server', :as_of)
on conflict (user_id, channel, address) do nothing;
