-- The outbox: due, prepared, claimed, sent.

-- name: expire_leases
-- The holder of an expired lease may or may not have handed the message over. A mail is not retried. A webhook or
-- an event is retried under the same id, which its receiver recognizes.
update journeys.messages
set
    status = case
        when channel = 'email' then 'unknown'
        when attempts >= :most_retries then 'failed'
        else 'pending'
    end,
    reason = 'the sender went away while sending',
    attempts = attempts + 1,
    fence = fence + 1,
    lease_until = null
where journey = any(:journeys) and status = 'sending' and lease_until < clock_timestamp();

-- name: count_due
select count(*) from (
    select from journeys.due_messages(:channel, :journeys, :as_of, true)
    union all
    select from journeys.due_messages(:channel, :journeys, :as_of, false)
    limit :at_most
) as due;

-- name: prepare
-- A page of due messages, with all the data to write them. The next page begins after the last message of this one.
-- Messages due to one user at one instant are adjacent, in the order of the steps.
with page as (
    select messages.*
    from journeys.due_messages(:channel, :journeys, :as_of, :are_transactional) as messages
    where
        (messages.due_at, messages.user_id, messages.position, messages.message_id)
            > (:after_due_at, :after_user_id, :after_position, :after_message_id)
    order by messages.due_at, messages.user_id, messages.position, messages.message_id
    limit :page
)

select
    messages.message_id,
    messages.journey,
    messages.channel,
    messages.user_id,
    messages.variant,
    messages.due_at,
    messages.position,
    messages.attempts,
    messages.is_limited,
    steps.definition as step,
    stop.reason as stopped_by,
    case
        when journeys.has_hours(steps.definition) then upnext.first_allowed(
            :as_of,
            coalesce(journeys.time_zone_of(messages.user_id, :time_zone_trait, :as_of), :time_zone),
            nullif(steps.definition -> 'send_window', 'null'),
            nullif(steps.definition -> 'quiet_hours', 'null')
        )
        else :as_of
    end as allowed_at,
    traits.traits,
    to_jsonb(user_features) as features,
    trigger.properties as event,
    answers.by_step as answers
from page as messages
inner join journeys.entries on entries.entry_id = messages.entry_id
inner join journeys.steps
    on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
left join features.user_features on user_features.user_id = messages.user_id
left join lateral journeys.trigger_of(entries.trigger_source, entries.trigger_id) as trigger on true
cross join lateral journeys.traits_of(messages.user_id, :as_of) as traits
cross join lateral (
    select jsonb_object_agg(answered.step, answered.answer order by answered.visit) as by_step
    from journeys.messages as answered
    where answered.entry_id = messages.entry_id and answered.answer is not null
) as answers
cross join lateral journeys.stop_reason(
    messages.message_id, traits.traits ->> 'email', :as_of, :late_after, :cap_channels, :cap_messages, :cap_per,
        :opt_out_topics
) as stop (reason)
order by messages.due_at, messages.user_id, messages.position, messages.message_id;

-- name: skip
update journeys.messages set status = 'skipped', reason = :reason
where message_id = :message_id and status = 'pending';

-- name: postpone
update journeys.messages set not_before = :until where message_id = :message_id and status = 'pending';

-- name: postpone_all
-- No more of a channel goes out on a day; what is transactional does.
update journeys.messages set not_before = :until
where message_id in (
    select message_id from journeys.due_messages(:channel, :journeys, :as_of, false)
);

-- name: warmed_up
-- The domains, and '' for all, of which a channel has sent as many on a day as it may.
select counts.domain
from journeys.warm_up as counts
inner join unnest(cast(:domains as text []), cast(:limits as integer [])) as tiers (domain, most)
    on tiers.domain = counts.domain and counts.taken >= tiers.most
where counts.channel = :channel and counts.day = :day;

-- name: take_warm_up
-- Counts a message before it is sent, once for all and once for its domain; says of how many of the two a place was
-- left. A row's lock keeps several senders within its limit together.
with tiers as (
    select * from unnest(cast(:domains as text []), cast(:limits as integer [])) as tiers (domain, most)
    where domain in ('', :domain)
),

taken as (
    insert into journeys.warm_up as counts (channel, day, domain, taken)
    select :channel, :day, domain, 1 from tiers order by domain
    on conflict (channel, day, domain) do update set taken = counts.taken + 1
    where
        cast(:is_transactional as boolean)
        or counts.taken < (select most from tiers where tiers.domain = excluded.domain)
    returning domain
)

select (select count(*) from taken) = (select count(*) from tiers);

-- name: record_links
insert into journeys.links (link_id, url) values (:link_id, :url) on conflict (link_id) do nothing;

-- name: lock_user
-- Two senders never check one user's messages at the same time, so that they do not exceed the cap together.
select pg_advisory_xact_lock(hashtextextended('upnext:messages of ' || :user_id, 0));

-- name: lock_journey
-- Senders count what a journey with a rate has sent one after the other.
select pg_advisory_xact_lock(hashtextextended('upnext:rate of ' || journey, 0)) from journeys.messages
where message_id = :message_id and is_limited;

-- name: pause_failing
-- Pauses the journeys of which more messages than their limits allow have failed, bounced, or led to complaints.
insert into journeys.pauses (journey, paused_at, reason)
select
    limits.journey,
    :as_of,
    (
        select string_agg(
            told.name || ' ' || round(100.0 * told.found / counted.handled, 2) || ' % of ' || counted.handled
            || ' messages',
            ', ' order by told.name
        )
        from (
            values
            ('failed', counted.failed), ('bounced', counted.bounced), ('complained', counted.complained)
        ) as told (name, found)
        where told.found > counted.handled * cast(limits.pauses ->> told.name as numeric)
    ) as reason
from journeys.limits
cross join lateral (
    select
        count(*) as handled,
        count(*) filter (where messages.status = 'failed') as failed,
        count(*) filter (where reactions.has_bounced) as bounced,
        count(*) filter (where reactions.has_complained) as complained
    from journeys.messages
    left join lateral (
        select
            bool_or(events.event = 'message bounced' and events.kind is distinct from 'soft') as has_bounced,
            bool_or(events.event = 'message complained') as has_complained
        from journeys.consent_events(null, array[messages.message_id]) as events
    ) as reactions on true
    where
        messages.is_limited
        and messages.journey = limits.journey
        and messages.status in ('sent', 'failed', 'unknown')
        and messages.tried_at >= limits.counted_since
) as counted
where
    limits.journey = any(:journeys)
    and limits.pauses is not null
    and counted.handled >= cast(limits.pauses ->> 'of_at_least' as integer)
    and (
        counted.failed > counted.handled * cast(limits.pauses ->> 'failed' as numeric)
        or counted.bounced > counted.handled * cast(limits.pauses ->> 'bounced' as numeric)
        or counted.complained > counted.handled * cast(limits.pauses ->> 'complained' as numeric)
    )
on conflict (journey) do nothing;

-- name: claim
-- Claims one message for one sender. The reasons to stop it are checked again while its row is locked. Somebody who was
-- erased may have left the address with another account.
with locked as (
    select message_id from journeys.messages
    where
        message_id = :message_id
        and status = 'pending'
        and (retry_at is null or retry_at <= clock_timestamp())
        and journey not in (select journey from journeys.pauses)
        and journey in (select name from upnext.started)
        and not (is_limited and journeys.is_full(journey, :as_of))
    for update skip locked
),

-- Materialised, or the reasons would be looked for once for each column that they decide.
judged as materialized (
    select
        locked.message_id,
        case
            when exists (select from upnext.erased where hash = any(:hashes) and readmitted_at is null) then 'erased'
            else stop.reason
        end as stopped_by
    from locked
    cross join lateral journeys.stop_reason(
        locked.message_id, :address, :as_of, :late_after, :cap_channels, :cap_messages, :cap_per,
        :opt_out_topics
    ) as stop (reason)
)

update journeys.messages
set
    status = case when judged.stopped_by is null then 'sending' else 'skipped' end,
    reason = judged.stopped_by,
    address = lower(:address),
    -- Somebody may have resumed the journey while this dispatch, whose clock is behind, was at work.
    tried_at = case when judged.stopped_by is null then greatest(
        cast(:as_of as timestamptz), (select counted_since from journeys.limits where limits.journey = messages.journey)
    ) end,
    fence = messages.fence + 1,
    lease_until = case when judged.stopped_by is null then clock_timestamp() + interval '120 seconds' end
from judged
where messages.message_id = judged.message_id
returning messages.message_id, messages.status, messages.fence;

-- name: record_outcome
-- Only the holder of the newest fence may write. If nothing was handed over, it does not count as an attempt. A wait
-- for this message to be opened starts now. Where the catalogue lists `message sent`, it is an event of the user.
with recorded as (
    update journeys.messages
    set
        status = :status,
        reason = :reason,
        sent_at = case when :status = 'sent' then cast(:as_of as timestamptz) end,
        attempts = attempts + cast(:is_attempt as integer),
        lease_until = null,
        answer = coalesce(cast(:answer as jsonb), answer),
        retry_at = clock_timestamp() + cast(:retry_after as interval)
    where message_id = :message_id and status = 'sending' and fence = :fence
    returning message_id, entry_id, user_id, journey, step, variant, channel, sent_at
),

told as (
    insert into edge.inbox (source, line)
    select
        'upnext',
        convert_to(
            cast(
                jsonb_build_object(
                    'type', 'track',
                    'event', 'message sent',
                    'messageId', 'sent ' || message_id,
                    'userId', user_id,
                    'timestamp', sent_at,
                    'properties', jsonb_strip_nulls(jsonb_build_object(
                        'message_id', message_id, 'journey', journey, 'step', step, 'variant', variant,
                        'channel', channel
                    ))
                ) as text
            ),
            'UTF8'
        )
    from recorded
    where sent_at is not null and cast(:is_told as boolean) and channel in ('email', 'webhook')
),

waiting as (
    update journeys.entries
    set next_due_at = greatest(entries.next_due_at, recorded.sent_at + steps.within)
    from recorded
    inner join journeys.steps on steps.kind = 'wait' and recorded.step = any(steps.of_steps)
    where
        entries.entry_id = recorded.entry_id
        and entries.step = steps.step
        and steps.journey = entries.journey
        and steps.version = entries.version
        and entries.next_due_at < recorded.sent_at + steps.within
)

select count(*) > 0 from recorded;

-- name: emit
insert into edge.inbox (source, line) values ('upnext', :line);

-- name: disable_endpoint
insert into journeys.disabled_endpoints (endpoint, url, disabled_at, reason) values (:endpoint, :url, :as_of, :reason)
on conflict (endpoint) do nothing;

-- name: enable_endpoints
-- Whatever has another address now, or a body of its own, is another endpoint.
delete from journeys.disabled_endpoints
where not exists (
    select from unnest(cast(:endpoints as text []), cast(:urls as text [])) as declared (endpoint, url)
    where disabled_endpoints.endpoint = declared.endpoint and disabled_endpoints.url = declared.url
);
