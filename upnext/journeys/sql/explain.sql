-- The path of one user through one journey.

-- name: survivor_of
select user_id from events.identity_links
where
    kind = case when upnext.is_visitor(:user_id) then 'visitor' else 'user' end
    and id = regexp_replace(:user_id, '^visitor:', '')
    and user_id is not null;

-- name: is_known_user
select
    exists (select 1 from features.user_features where user_id = :user_id)
    or exists (select 1 from raw.events where person_id = :user_id);

-- name: changes_of_user
select change, as_of from segments.published_changes
where segment = :segment and user_id = :user_id
order by change_id;

-- name: is_member
select exists (select from segments.members where segment = :segment and user_id = :user_id);

-- name: state_of_journey
select
    exists (select from upnext.started where name = :journey) as is_started,
    exists (select from segments.consumer_offsets where consumer = 'journey:' || :journey) as is_dispatched;

-- name: entries_of_user
select
    entries.entry_id, entries.version, entries.key, entries.entered_at, entries.status, entries.reason, entries.step,
    entries.next_due_at, entries.reached_at, entries.shifted, entries.goal_reached_at, entries.ended_at,
    entries.is_in_both_arms, steps.kind
from journeys.entries
left join journeys.steps using (journey, version, step)
where entries.journey = :journey and entries.user_id = :user_id
order by entries.entered_at, entries.entry_id;

-- name: messages_of_entry
-- `stopped_by` is the reason why a pending message would be skipped now.
select
    messages.step, messages.channel, messages.variant, messages.due_at, messages.status, messages.reason,
    messages.sent_at, messages.not_before, messages.retry_at, messages.attempts, stop.reason as stopped_by
from journeys.messages
left join lateral journeys.stop_reason(
    messages.message_id, messages.address, :as_of, :late_after, :cap_channels, :cap_messages, :cap_per,
        :opt_out_topics
) as stop (reason) on messages.status = 'pending'
where messages.entry_id = :entry_id
order by messages.due_at, messages.position, messages.visit;

-- name: consents_of_user
select topic, is_granted, source, since from journeys.consents where user_id = :user_id order by since, topic;

-- name: suppressions_of_user
select channel, reason, since from journeys.suppressions where user_id = :user_id order by since;
