-- The programme: what journeys and experiences are worth as a whole.

-- name: record_programme
insert into analytics.programme as known (goal, minimum_lift, revenue)
values (cast(:goal as jsonb), :minimum_lift, :revenue)
on conflict (name) do update
set goal = excluded.goal, minimum_lift = excluded.minimum_lift, revenue = excluded.revenue
where (known.goal, known.minimum_lift, known.revenue)
is distinct from (excluded.goal, excluded.minimum_lift, excluded.revenue);

-- name: forget_programme
delete from analytics.programme;

-- name: record_share
-- The first share holds from the beginning, and another one from after the last use of the one before it: what this
-- share draws may be dated earlier than now.
insert into analytics.programme_shares as known (since, share, used_at)
select
    case
        when newest.share is null then '-infinity'
        when newest.share = :share then newest.since
        else newest.used_at + interval '1 microsecond'
    end,
    :share,
    :as_of
from (select 1) as one
left join (select since, share, used_at from analytics.programme_shares order by since desc limit 1) as newest on true
on conflict (since) do update
set share = excluded.share, used_at = greatest(known.used_at, excluded.used_at)
where (known.share, known.used_at) is distinct from (excluded.share, greatest(known.used_at, excluded.used_at));

-- name: newest_programme
select * from analytics.programme_number order by as_of desc limit 1;
