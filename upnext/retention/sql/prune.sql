-- What `upnext prune` deletes.

-- name: keep_since
-- It never goes back: what was deleted cannot be told from what was never there.
update raw.kept set since = greatest(since, :since), events = :events;

-- name: kept
select since, events from raw.kept;

-- name: first_day
select date_trunc('day', min(occurred_at), 'UTC') from raw.events
where
    occurred_at >= :after
    and occurred_at < :since
    and type not in ('identify', 'alias', 'group')
    and (event is null or event <> all(:kept));

-- name: forget_old_events
drop table if exists pg_temp.old_events;

-- name: old_events_of_day
-- Opens and clicks go with their message, whose sums they are part of.
create temporary table old_events on commit drop as
with candidates as materialized (
    select source, message_id, person_id, properties ->> 'message_id' as about_message
    from raw.events
    where
        occurred_at >= :day
        and occurred_at < least(cast(:day as timestamptz) + interval '1 day', :since)
        and type not in ('identify', 'alias', 'group')
        and (event is null or event <> all(:kept))
)

select candidates.source, candidates.message_id, candidates.person_id
from candidates
where
    not exists (select from journeys.messages where messages.message_id = candidates.about_message)
    -- Who is inside a journey needs the event that let them in.
    and not exists (
        select from journeys.entries
        where
            entries.trigger_source = candidates.source and entries.trigger_id = candidates.message_id
            and entries.ended_at is null
    );

-- name: forget_users_of_day
drop table if exists pg_temp.users_of_day;

-- name: users_of_day
-- Who the events of a day are of, and in which account: features are recomputed for those who have no other event.
create temporary table users_of_day on commit drop as
select distinct user_id, account_id from events.identified_events
where occurred_at >= :day and occurred_at < cast(:day as timestamptz) + interval '1 day';

-- name: delete_day
with old as materialized (
    select source, message_id, person_id from pg_temp.old_events
),

gone as (
    delete from raw.events
    using old
    where
        events.person_id = old.person_id and events.source = old.source and events.message_id = old.message_id
    returning events.load_id
)

select count(*) from gone;

-- name: recompute_users
-- By the next tick: the one that follows, also where a tick was left open.
insert into features.changed_keys (model, tick_id, key)
select distinct 'identity_links', following.tick_id, gone.user_id
from pg_temp.users_of_day as gone
cross join (
    select coalesce(max(tick_id), 0) + 1 as tick_id from segments.published_ticks
    union
    select coalesce(max(tick_id), 0) + 1 from segments.ticks
) as following
where not raw.has_events(gone.user_id, gone.account_id);

-- name: has_identities
select to_regclass('events.identified_events') is not null;

-- name: prune_rejects
delete from raw.rejected_events
using raw.loads
where loads.load_id = rejected_events.load_id and loads.loaded_at < :since;

-- name: prune_changes_of_users
-- A user who came and left long ago is forgotten; of one who is still a member the entry stays. So sums of entries less
-- exits, and the last change before any later instant, are what they were.
with old as (
    select
        changes.change_id,
        changes.change,
        row_number() over (partition by changes.segment, changes.user_id order by changes.change_id desc) as nth
    from segments.membership_changes as changes
    inner join segments.published_ticks on published_ticks.tick_id = changes.tick_id
    where changes.as_of < :since
)

delete from segments.membership_changes
using old
where membership_changes.change_id = old.change_id and (old.nth > 1 or old.change = 'exited');

-- name: prune_changes_of_accounts
with old as (
    select
        changes.change_id,
        changes.change,
        row_number() over (partition by changes.segment, changes.account_id order by changes.change_id desc) as nth
    from segments.account_membership_changes as changes
    inner join segments.published_ticks on published_ticks.tick_id = changes.tick_id
    where changes.as_of < :since
)

delete from segments.account_membership_changes
using old
where account_membership_changes.change_id = old.change_id and (old.nth > 1 or old.change = 'exited');

-- name: prune_messages
-- Entries stay, because `reentry` asks for them, and so does what is still shown.
delete from journeys.messages
using journeys.entries
where
    entries.entry_id = messages.entry_id
    and entries.ended_at < :since
    and messages.due_at < :since
    and (messages.ends_at is null or messages.ends_at < :since)
    and messages.status not in ('pending', 'sending');

-- name: prune_evaluations
-- Those that changed nothing, but for the newest of each segment.
delete from segments.evaluations
using segments.published_ticks
where
    published_ticks.tick_id = evaluations.tick_id
    and published_ticks.as_of < :recent
    and evaluations.entered = 0
    and evaluations.exited = 0
    and evaluations.tick_id < (
        select max(newest.tick_id) from segments.evaluations as newest where newest.segment = evaluations.segment
    );

-- name: prune_merged_users
delete from segments.merged_users
using segments.published_ticks
where published_ticks.tick_id = merged_users.tick_id and published_ticks.as_of < :recent;

-- name: prune_ticks
-- Those that nothing names: no change was made in them.
delete from segments.ticks
where
    published_at is not null
    and as_of < :recent
    and tick_id < (select max(tick_id) from segments.published_ticks)
    and not exists (select from segments.membership_changes where membership_changes.tick_id = ticks.tick_id)
    and not exists (
        select from segments.account_membership_changes where account_membership_changes.tick_id = ticks.tick_id
    )
    and not exists (select from segments.evaluations where evaluations.tick_id = ticks.tick_id)
    and not exists (select from segments.merged_users where merged_users.tick_id = ticks.tick_id);

-- name: prune_loads
-- Pages of the inbox and replays, of which nothing is left. Those of files say for good what was loaded.
delete from raw.loads
where
    loaded_at < :recent
    and path like 'edge:%'
    and not raw.has_stored(load_id)
    and not exists (select from raw.rejected_events where rejected_events.load_id = loads.load_id)
    and not exists (select from raw.loads as replays where replays.replay_of = loads.load_id);

-- name: prune_refusals
delete from edge.refusals where minute < :recent;

-- name: prune_rebuilds
delete from features.rebuilds where rebuilt_at < :recent;
