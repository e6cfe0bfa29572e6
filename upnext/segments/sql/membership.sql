-- name: beyond_limits
select segment, members_before as members, entered, exited, is_held
from segments.evaluations
where is_beyond_limit and tick_id = (select max(tick_id) from segments.ticks)
order by segment;

-- name: not_evaluated
select segment, error
from segments.evaluations
where error is not null and tick_id = (select max(tick_id) from segments.ticks)
order by segment;

-- name: known_segments
select segment from segments.membership_changes
union
select segment from segments.account_membership_changes;

-- name: members_of_other_content
-- A few of the segments with members where none of the declared ones has ever had any.
select array_agg(segment order by segment)
from (
    select distinct segment from segments.members
    where not exists (
        select from segments.membership_changes where segment = any(cast(:declared as text []))
    )
    limit 3
) as others;

-- name: release
update segments.evaluations set is_released = true
where
    segment = :segment
    and is_held
    and tick_id = (select max(tick_id) from segments.evaluations where segment = :segment)
returning entered + exited;

-- name: users_at
select user_id
from (
    select distinct on (user_id) user_id, change
    from segments.membership_changes
    where
        segment = :segment
        and as_of <= :at
        and tick_id in (select tick_id from segments.published_ticks)
    order by user_id, change_id desc
) as latest
where change = 'entered'
order by user_id collate "C";

-- name: accounts_at
select account_id
from (
    select distinct on (account_id) account_id, change
    from segments.account_membership_changes
    where
        segment = :segment
        and as_of <= :at
        and tick_id in (select tick_id from segments.published_ticks)
    order by account_id, change_id desc
) as latest
where change = 'entered'
order by account_id collate "C";

-- name: sizes_at
select segment, members_before + entered - exited as members
from segments.evaluations
where segment = any(:segments) and tick_id = :tick_id and not is_held and error is null;
