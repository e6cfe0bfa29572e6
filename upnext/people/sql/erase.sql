-- Erasing a person. What results count of them stays, as sums and as rows of nobody.

-- name: lists_with
select list, id from segments.lists where id = any(:users) order by list, id;

-- name: is_sending
select exists (
    select from journeys.messages
    where
        (user_id = any(:users) or address = any(:addresses))
        and status = 'sending' and lease_until > clock_timestamp()
);

-- name: are_outcomes_built
select to_regclass('analytics.experiment_arms') is not null;

-- name: keep_outcomes
-- Each row gets an id of its own, so that nothing tells which rows were of one person, and a day for a time. An outcome
-- that was still open goes with the person.
update analytics.experiment_users as users
set
    user_id = 'erased:' || gen_random_uuid(),
    exposed_at = greatest(cast(users.exposed_on as timestamp) at time zone 'UTC', arms.first_exposed_at),
    closes_at = date_trunc('day', users.closes_at, 'UTC')
from analytics.experiment_arms as arms
where
    users.user_id = any(:users)
    and users.is_window_over
    and arms.experiment = users.experiment
    and arms.split = users.split
    and arms.arm = users.arm;

-- name: has_accounts
select to_regclass('features.account_users') is not null;

-- name: recompute_accounts
-- The next tick adds up the accounts of the person anew: the one that follows, also where a tick was left open.
insert into features.changed_keys (model, tick_id, key)
select distinct 'account_users', following.tick_id, account_users.account_id
from features.account_users
cross join (
    select coalesce(max(tick_id), 0) + 1 as tick_id from segments.published_ticks
    union
    select coalesce(max(tick_id), 0) + 1 from segments.ticks
) as following
where account_users.user_id = any(:users);

-- name: count_erased
update raw.loads
set erased = loads.erased + counted.events
from (
    select load_id, count(*) as events from raw.events
    where
        (person_id = any(:places) and upnext.said_by(user_id, anonymous_id) = any(:users))
        or (type = 'alias' and previous_id = any(:everything))
    group by load_id
) as counted
where loads.load_id = counted.load_id;

-- name: forget_device
update raw.events set anonymous_id = null where anonymous_id = any(:visitors);

-- name: forget_address
update journeys.messages set address = null where address = any(:addresses);

-- name: forget_shared_address
-- Another user of the address stays stopped, as a user. A bounce is a word on the address alone, which gets no mail.
with theirs as (
    delete from journeys.suppressions where address = any(:addresses)
    returning user_id, channel, reason, source, since
)

insert into journeys.suppressions (user_id, channel, address, reason, source, since)
select distinct on (user_id, channel) user_id, channel, '', reason, source, since from theirs
where user_id <> '' and reason <> 'bounced'
order by user_id, channel, since desc
on conflict (user_id, channel, address) do nothing;

-- name: forget_links
-- Addresses of pages that hold an id or an address of the person.
delete from journeys.links
where exists (select from unnest(cast(:in_links as text [])) as one where position(one in url) > 0);

-- name: rejects_with
select * from raw.rejected_events
where exists (select from unnest(cast(:texts as text [])) as one where position(one in payload) > 0)
or exists (select from unnest(cast(:addresses as text [])) as one where position(one in lower(payload)) > 0);

-- name: forget_rejects
delete from raw.rejected_events
using unnest(cast(:loads as bigint []), cast(:lines as bigint [])) as gone (load_id, line)
where rejected_events.load_id = gone.load_id and rejected_events.line = gone.line;

-- name: lines_with
select * from edge.inbox
where exists (
    select from unnest(cast(:texts as text []) || cast(:addresses as text [])) as one
    where position(convert_to(one, 'UTF8') in line) > 0
);

-- name: forget_lines
-- Lines that a load has taken are refused by it.
delete from edge.inbox
where inbox_id in (select inbox_id from edge.inbox where inbox_id = any(:ids) for update skip locked);

-- name: loads_of
select path, source from raw.loads
where load_id in (
    select load_id from raw.events
    where
        (person_id = any(:places) and upnext.said_by(user_id, anonymous_id) = any(:users))
        or anonymous_id = any(:visitors)
        or (type = 'alias' and previous_id = any(:everything))
)
and starts_with(path, '/')
group by path, source
order by path;

-- name: rewritten
update raw.loads
set
    fingerprint = case when fingerprint = :old_fingerprint then :fingerprint else fingerprint end,
    prefix = :prefix,
    read_to = :read_to,
    read_lines = :read_lines,
    size = :size,
    modified_at = :modified_at,
    inode = :inode,
    changed_at = :changed_at
where load_id = (
    select max(load_id) from raw.loads where source = :source and path = :path and replay_of is null
);
