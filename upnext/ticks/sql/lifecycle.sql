-- name: last_as_of
select max(as_of) from segments.ticks;

-- name: last_published_as_of
select max(as_of) from segments.published_ticks;

-- name: newest_published
select max(tick_id) from segments.published_ticks;

-- name: count_loads_to_take_in
select count(*) from raw.loads where stored > 0 and path like :path and (tick_id is null or tick_id > :published);

-- name: find_open_tick
select tick_id from segments.ticks where published_at is null for update;

-- name: take_back_changes_of_users
delete from segments.membership_changes where tick_id = :tick_id;

-- name: take_back_changes_of_accounts
delete from segments.account_membership_changes where tick_id = :tick_id;

-- name: take_back_evaluations
delete from segments.evaluations where tick_id = :tick_id;

-- name: take_back_tick
delete from segments.ticks where tick_id = :tick_id;

-- name: open_tick
insert into segments.ticks (as_of, holder) values (:as_of, :holder) returning tick_id;

-- name: claim_loads
update raw.loads set tick_id = :tick_id where tick_id is null;

-- name: backend_pid
select pg_backend_pid();

-- name: fence_tick
select upnext.fence_tick(:tick_id);

-- name: undeclared_segments
-- Segments that were evaluated once and are no longer declared; each is looked up by the index.
with recursive evaluated (segment) as (
    select min(segment) from segments.evaluations
    union all
    select (select min(others.segment) from segments.evaluations as others where others.segment > evaluated.segment)
    from evaluated
    where evaluated.segment is not null
)

select segment from evaluated where segment <> all(cast(:segments as text[]));

-- name: exit_undeclared_users
insert into segments.membership_changes (tick_id, segment, user_id, change, as_of)
select :tick_id, segment, user_id, 'exited', :as_of
from segments.members
where segment = any(cast(:undeclared as text[]))
order by segment, user_id;

-- name: remove_exited_users
delete from segments.members as members using segments.membership_changes as changes
where
    changes.tick_id = :tick_id
    and changes.change = 'exited'
    and members.segment = changes.segment
    and members.user_id = changes.user_id;

-- name: add_entered_users
insert into segments.members (segment, user_id, entered_at)
select segment, user_id, as_of
from segments.membership_changes
where tick_id = :tick_id and change = 'entered';

-- name: count_changes_of_users
select segment || ' ' || change as name, count(*) as changes
from segments.membership_changes
where tick_id = :tick_id
group by 1;

-- name: exit_undeclared_accounts
insert into segments.account_membership_changes (tick_id, segment, account_id, change, as_of)
select :tick_id, segment, account_id, 'exited', :as_of
from segments.account_members
where segment = any(cast(:undeclared as text[]))
order by segment, account_id;

-- name: remove_exited_accounts
delete from segments.account_members as members using segments.account_membership_changes as changes
where
    changes.tick_id = :tick_id
    and changes.change = 'exited'
    and members.segment = changes.segment
    and members.account_id = changes.account_id;

-- name: add_entered_accounts
insert into segments.account_members (segment, account_id, entered_at)
select segment, account_id, as_of
from segments.account_membership_changes
where tick_id = :tick_id and change = 'entered';

-- name: count_changes_of_accounts
select segment || ' ' || change as name, count(*) as changes
from segments.account_membership_changes
where tick_id = :tick_id
group by 1;

-- name: forget_undeclared_evaluations
delete from segments.evaluations where segment = any(cast(:undeclared as text[]));

-- name: keep_merged_users
insert into segments.merged_users (tick_id, user_id)
select distinct cast(:tick_id as bigint), key
from features.changed_keys
where model = 'identity_links' and tick_id <= :tick_id;

-- name: forget_changed_keys
delete from features.changed_keys where tick_id <= :tick_id;

-- name: publish_tick
update segments.ticks set published_at = :published_at where tick_id = :tick_id;
