-- What a deletion takes away from the sums of the results.

-- name: are_results_built
select to_regclass('analytics.journey_steps') is not null and to_regclass('analytics.copy_counts') is not null;

-- name: lock_results
-- It takes no snapshot: a deletion that waits here then sees what the analysis before it has committed.
lock table analytics.stale_days in exclusive mode;

-- name: forget_counts
drop table if exists pg_temp.steps_before, pg_temp.copies_before;

-- name: keep_steps
create temporary table steps_before on commit drop as select * from analytics.journey_steps;

-- name: keep_copies
create temporary table copies_before on commit drop as select * from analytics.copy_counts;

-- name: add_erased_steps
insert into analytics.erased_steps as kept (journey, step, entered, sent, opened, clicked, converted)
select
    journey,
    step,
    before.entered - now.entered,
    before.sent - now.sent,
    before.opened - now.opened,
    before.clicked - now.clicked,
    before.converted - now.converted
from pg_temp.steps_before as before
inner join analytics.journey_steps as now using (journey, step)
where
    (before.entered, before.sent, before.opened, before.clicked, before.converted)
    is distinct from (now.entered, now.sent, now.opened, now.clicked, now.converted)
on conflict (journey, step) do update
set
    entered = kept.entered + excluded.entered,
    sent = kept.sent + excluded.sent,
    opened = kept.opened + excluded.opened,
    clicked = kept.clicked + excluded.clicked,
    converted = kept.converted + excluded.converted;

-- name: add_erased_copies
-- What was still open of them cannot end any more, and counts no longer.
insert into analytics.erased_copies as kept (segment, experiment, split, variant, exposed, clicked, converted, open)
select
    segment,
    experiment,
    split,
    variant,
    before.exposed - coalesce(now.exposed, 0),
    before.clicked - coalesce(now.clicked, 0),
    before.converted - coalesce(now.converted, 0),
    0
from pg_temp.copies_before as before
left join analytics.copy_counts as now using (segment, experiment, split, variant)
where
    (before.exposed, before.clicked, before.converted)
    is distinct from (coalesce(now.exposed, 0), coalesce(now.clicked, 0), coalesce(now.converted, 0))
on conflict (segment, experiment, split, variant) do update
set
    exposed = kept.exposed + excluded.exposed,
    clicked = kept.clicked + excluded.clicked,
    converted = kept.converted + excluded.converted;
