-- What the report shows, each statement at the newest tick or analysis.

-- name: instants
select
    (select max(as_of) from segments.published_ticks) as as_of,
    (select max(as_of) from analytics.experiment_results) as analysed_at;

-- name: sizes
select
    declared.segment,
    coalesce(users.members, accounts.members, 0) as members,
    accounts.members is not null as is_of_accounts,
    declared.segment in (select segment from segments.held) as is_held,
    newest.error
from unnest(cast(:segments as text [])) as declared (segment)
left join (select segment, count(*) as members from segments.members group by 1) as users using (segment)
left join (select segment, count(*) as members from segments.account_members group by 1) as accounts using (segment)
left join lateral (
    select error from segments.evaluations
    where evaluations.segment = declared.segment
    order by tick_id desc
    limit 1
) as newest on true
order by members desc, declared.segment;

-- name: segment_days
select segment, day, entered, exited, members
from segments.daily_changes
where
    segment = any(:segments)
    and day > cast((select max(as_of) from segments.published_ticks) as date) - cast(:days as integer)
order by segment, day;

-- name: count_members
select count(*) from segments.members;

-- name: overlaps
-- Of a sample of the users, by hash; the largest segments alone.
with chosen as (
    select segment, user_id from segments.members
    where segment = any(:segments) and (:one_in = 1 or mod(hashtext(user_id) & 2147483647, :one_in) = 0)
)

select one.segment, other.segment as other, count(*) * :one_in as users
from chosen as one
inner join chosen as other using (user_id)
group by one.segment, other.segment;

-- name: entries
select journey, status, coalesce(reason, '') as reason, count(*) as entries
from journeys.entries
group by 1, 2, 3
order by journey, entries desc;

-- name: entry_days
select journey, cast(entered_at as date) as day, count(*) as entries
from journeys.entries
where entered_at > cast(:as_of as timestamptz) - make_interval(days => :days)
group by 1, 2
order by 1, 2;

-- name: messages
select journey, step, channel, status, coalesce(reason, '') as reason, count(*) as messages
from journeys.messages
group by 1, 2, 3, 4, 5
order by journey, step, messages desc;

-- name: message_days
select journey, step, cast(sent_at as date) as day, count(*) as messages
from journeys.messages
where status = 'sent' and sent_at > cast(:as_of as timestamptz) - make_interval(days => :days)
group by 1, 2, 3
order by 1, 2, 3;

-- name: steps
select steps.journey, steps.step, steps.position, steps.kind, steps.next, steps.otherwise, steps.definition
from journeys.steps
inner join (
    select distinct on (journey) journey, version
    from journeys.definitions
    order by journey, in_force_since desc, version
) as newest using (journey, version)
order by steps.journey, steps.position;

-- name: funnel
select * from analytics.journey_funnel
where as_of = (select max(as_of) from analytics.journey_funnel)
order by journey, step;

-- name: results
select * from analytics.experiment_results
where as_of = (select max(as_of) from analytics.experiment_results)
order by experiment, metric, arm;

-- name: lift_days
-- The last look of each day.
select distinct on (experiment, arm, cast(as_of as date))
    experiment,
    arm,
    cast(as_of as date) as day,
    lift,
    lift_always_low,
    lift_always_high
from analytics.experiment_results
where
    metric = 'goal'
    and lift is not null
    and as_of > (select max(as_of) from analytics.experiment_results) - make_interval(days => :days)
order by experiment asc, arm asc, cast(as_of as date) asc, as_of desc;

-- name: by_segment
select * from analytics.segment_results
where as_of = (select max(as_of) from analytics.experiment_results)
order by segment, experiment, arm, reference;

-- name: copies
select * from analytics.copy_ranking
where as_of = (select max(as_of) from analytics.experiment_results)
order by segment, experiment, goal_rank, rank;

-- name: freshness
select source, max(loaded_at) as loaded_at, sum(received) as received, sum(rejected) as rejected
from raw.loads
group by source
order by source;

-- name: newest_events
-- Of declared events alone: anybody may send others.
select event, last_at as occurred_at from raw.event_names
where event = any(:events)
order by last_at, event
limit :most;

-- name: rejects
select source, reason, count(*) as lines
from raw.rejected_events
group by 1, 2
order by lines desc, source, reason
limit 50;

-- name: refused_files
select count(*) from raw.refused_files;

-- name: waiting
select count(*) as waiting from edge.inbox;

-- name: refusals
select reason, cast(sum(count) as bigint) as requests
from edge.refusals
where minute > cast(:as_of as timestamptz) - interval '7 days'
group by 1
order by requests desc, reason;

-- name: drifts
select distinct on (model) model, rebuilt_at, drift
from features.rebuilds
where drift is not null
order by model, rebuilt_at desc;

-- name: unknown_outcomes
select journey, step, count(*) as messages
from journeys.messages
where status = 'unknown'
group by 1, 2
order by messages desc, journey, step;

-- name: store_page
insert into analytics.report as known (as_of, hash, page) values (:as_of, :hash, :page)
on conflict (name) do update
set as_of = excluded.as_of, hash = excluded.hash, page = excluded.page
where known.hash <> excluded.hash and (known.as_of is null or known.as_of <= excluded.as_of);
