-- name: newest
select max(tick_id) as tick_id, max(as_of) as as_of from segments.published_ticks;

-- name: find_all_stale_users
with changed as (
    delete from analytics.invalidated_users
)

insert into analytics.stale_users
select user_id from experiences.assignments
union
select user_id from journeys.entries
union
select user_id from analytics.experiment_users;

-- name: find_stale_users
-- Users to recompute: window just closed, goal changed, entry or assignment changed, identity merged, late event, or
-- first exposure to an arm. `offset 0` forces an index look-up per user; in index order it is a third faster.
with changed as (
    delete from analytics.invalidated_users returning user_id
),

views as (
    select user_id, properties, occurred_at
    from events.user_events
    where event = 'experience viewed' and occurred_at >= :since and occurred_at <= :as_of
    order by user_id
)

insert into analytics.stale_users
select user_id from analytics.experiment_users where not is_window_over and closes_at <= :as_of
union
select user_id from experiences.assignments where experience = any(:new_goals)
union
select user_id from journeys.entries where journey = any(:new_goals)
union
select user_id from changed
union
select user_id from segments.merged_users where tick_id > :since_tick
union
select user_id
from events.identified_events
where
    load_id = any(array(select raw.loads_since(:since_tick)))
    and occurred_at <= :since
union
select views.user_id
from views
where not exists (
    select from analytics.experiment_users as known
    where
        known.user_id = views.user_id
        and known.experiment = views.properties ->> 'experience'
        and (known.is_in_both_arms or known.arm = views.properties ->> 'variant')
    offset 0
)
order by user_id;

-- name: look_up
create temporary table fresh as select * from analytics.stale_outcomes;

-- name: differ
create temporary table differing as
with live as (
    select known.*
    from analytics.stale_users as touched
    cross join lateral (
        select * from analytics.experiment_users where user_id = touched.user_id offset 0
    ) as known
)

select
    coalesce(fresh.user_id, live.user_id) as user_id,
    coalesce(fresh.experiment, live.experiment) as experiment,
    array[fresh.exposed_on, live.exposed_on] as days
from fresh
full join live on fresh.user_id = live.user_id and fresh.experiment = live.experiment
where fresh is distinct from live;

-- name: remove
delete from analytics.experiment_users as live using differing
where live.user_id = differing.user_id and live.experiment = differing.experiment;

-- name: add
insert into analytics.experiment_users
select fresh.*
from fresh
inner join differing on fresh.user_id = differing.user_id and fresh.experiment = differing.experiment;

-- name: find_stale_days
insert into analytics.stale_days
select distinct experiment, day
from differing
cross join unnest(days) as day
where day is not null;

-- name: find_all_stale_days
insert into analytics.stale_days
select experiment, exposed_on from analytics.experiment_users
union
select experiment, exposed_on from analytics.daily_moments;

-- name: remove_moments
delete from analytics.daily_moments as live using analytics.stale_days as touched
where live.experiment = touched.experiment and live.exposed_on = touched.exposed_on;

-- name: add_moments
insert into analytics.daily_moments select * from analytics.stale_moments;

-- name: clear
truncate analytics.stale_users, analytics.stale_days;

-- name: analyze_users
analyze analytics.stale_users;

-- name: analyze_days
analyze analytics.stale_days;

-- name: drop_temporary
drop table fresh, differing;

-- name: forget_offset
delete from segments.consumer_offsets where consumer = :table;
