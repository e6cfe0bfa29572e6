-- name: record
-- Other weights hold from after the last assignment on, which may be of the same instant.
with newest as (
    select since, weights from experiences.shares where experience = :experience order by since desc limit 1
),

changed as (
    insert into experiences.shares (experience, since, weights)
    select
        :experience,
        case when newest.since is null then '-infinity' else greatest(
            cast(:as_of as timestamptz),
            newest.since + interval '1 microsecond',
            (select max(assigned_at) from experiences.assignments where experience = :experience)
            + interval '1 microsecond'
        ) end,
        cast(:definition as jsonb) -> 'weights'
    from (select 1) as one
    left join newest on true
    where cast(:definition as jsonb) -> 'weights' is distinct from newest.weights
)

insert into experiences.definitions (experience, definition) values (:experience, cast(:definition as jsonb))
on conflict (experience) do update set definition = excluded.definition
where experiences.definitions.definition is distinct from excluded.definition;

-- name: withdraw
update experiences.definitions set definition = jsonb_set(definition, '{is_started}', 'false')
where experience = :experience;

-- name: forget
delete from experiences.definitions where experience <> all(:experiences);

-- name: merge
-- After a merge the earliest assignment of a person applies. `is_in_both_arms` marks a person of two arms.
with merged as (select absorbed, user_id from segments.merges_since(:consumed_tick)),

held_out as (
    insert into experiences.held_out (user_id, since)
    select merged.user_id, min(held_out.since)
    from merged
    inner join experiences.held_out on held_out.user_id = merged.absorbed
    group by merged.user_id
    on conflict (user_id) do nothing
),

assigned as (
    select
        merged.user_id, assignments.experience, assignments.user_id as assigned_as, assignments.variant,
        assignments.assigned_at, assignments.mode, assignments.rules
    from merged
    inner join experiences.assignments on assignments.user_id = merged.absorbed
    union all
    select user_id, experience, user_id, variant, assigned_at, mode, rules
    from experiences.assignments
    where user_id in (select user_id from merged)
),

earliest as (
    select distinct on (experience, user_id)
        *,
        min(variant) over of_person <> max(variant) over of_person as is_in_both_arms
    from assigned
    window of_person as (partition by experience, user_id)
    order by experience, user_id, assigned_at, variant
),

-- What was seen of the person when they were assigned.
seen as (
    insert into experiences.seen_features (experience, user_id, features)
    select earliest.experience, earliest.user_id, seen_features.features
    from earliest
    inner join experiences.seen_features
        on seen_features.experience = earliest.experience and seen_features.user_id = earliest.assigned_as
    where earliest.assigned_as <> earliest.user_id
    on conflict (experience, user_id) do update set features = excluded.features
)

insert into experiences.assignments (experience, user_id, variant, assigned_at, mode, rules, is_in_both_arms)
select experience, user_id, variant, assigned_at, mode, rules, is_in_both_arms
from earliest
on conflict (experience, user_id) do update
set
    variant = excluded.variant,
    assigned_at = excluded.assigned_at,
    mode = excluded.mode,
    rules = excluded.rules,
    is_in_both_arms = experiences.assignments.is_in_both_arms or excluded.is_in_both_arms;

-- name: keep_out
-- Users of the global holdout who would be assigned now. Those who have a variant keep it.
insert into experiences.held_out (user_id, since)
select distinct candidates.user_id, cast(:as_of as timestamptz)
from experiences.candidates(:as_of, :changed, :consumed_tick) as candidates
where
    upnext.bucket('global holdout', candidates.user_id) < :global_holdout
    and not exists (select from experiences.assignments where assignments.user_id = candidates.user_id)
on conflict (user_id) do nothing;

-- name: assign
with running as (
    select experience, definition -> 'ranges' as ranges,
        nullif(definition -> 'learned', 'null') as learned, definition ->> 'policy' as policy,
        greatest(
            cast(:as_of as timestamptz),
            (select max(since) from experiences.shares where shares.experience = definitions.experience)
        ) as drawn_at
    from experiences.definitions
),

-- Control is the same whatever chooses the variant. The rules, or the best single variant, act on users who are
-- assigned from now on.
drawn as (
    select
        candidates.experience,
        candidates.user_id,
        arms.variant,
        running.learned,
        running.drawn_at,
        case
            when running.learned is null then 'chance'
            when policy.draw < cast(running.learned ->> 'chance' as double precision) then 'chance'
            when policy.draw < (1 + cast(running.learned ->> 'chance' as double precision)) / 2 then 'single'
            else 'rules'
        end as mode
    from experiences.candidates(:as_of, :changed, :consumed_tick) as candidates
    inner join running on running.experience = candidates.experience
    inner join lateral jsonb_to_recordset(running.ranges)
        as arms (variant text, low double precision, high double precision)
        on upnext.bucket('experience:' || candidates.experience, candidates.user_id) >= arms.low
        and upnext.bucket('experience:' || candidates.experience, candidates.user_id) < arms.high
    cross join lateral (
        select upnext.bucket('policy:' || candidates.experience, candidates.user_id) as draw
    ) as policy
    where
        -- Whoever was held out before stays so, also where the holdout is smaller by now.
        (
            :global_holdout = 0
            or (
                upnext.bucket('global holdout', candidates.user_id) >= :global_holdout
                and not experiences.was_held_out(candidates.user_id)
            )
        )
        and not exists (
            select from experiences.assignments
            where assignments.experience = candidates.experience and assignments.user_id = candidates.user_id
        )
),

assigned as (
    insert into experiences.assignments (experience, user_id, variant, assigned_at, mode, rules)
    select
        drawn.experience,
        drawn.user_id,
        case
            when drawn.variant = 'control' or drawn.mode = 'chance' then drawn.variant
            when drawn.mode = 'single' then drawn.learned ->> 'single'
            else rule.variant
        end,
        drawn.drawn_at,
        drawn.mode,
        md5(cast(drawn.learned as text))
    from drawn
    left join lateral (
        select rules.rule ->> 'show' as variant
        from jsonb_array_elements(drawn.learned -> 'rules') with ordinality as rules (rule, nth)
        left join features.user_features on user_features.user_id = drawn.user_id
        where drawn.mode = 'rules' and upnext.holds(to_jsonb(user_features), rules.rule -> 'when')
        order by rules.nth
        limit 1
    ) as rule on true
    on conflict (experience, user_id) do nothing
    returning experience, user_id
),

seen as (
    insert into experiences.seen_features (experience, user_id, features)
    select assigned.experience, assigned.user_id, to_jsonb(user_features)
    from assigned
    inner join running on running.experience = assigned.experience
    inner join features.user_features on user_features.user_id = assigned.user_id
    where running.policy = 'learn'
    on conflict (experience, user_id) do nothing
)

select count(*) from assigned;

-- name: sample
-- Users whose variant was drawn at chance, with their features at that time; `draw` tells halves and folds apart.
select
    users.arm,
    users.has_reached_goal,
    users.weights,
    seen.features,
    upnext.bucket('learn:' || users.experiment, users.user_id) as draw
from analytics.experiment_users as users
inner join experiences.seen_features as seen
    on seen.experience = users.experiment and seen.user_id = users.user_id
where
    users.experiment = :experience
    and users.arm <> 'control'
    and users.is_window_over
    and not users.is_in_both_arms
order by users.user_id;

-- name: show
-- Recompute only users with a change, each by an index look-up, which `offset 0` forces. Compare all open offers of
-- journeys, because they change by more than membership.
with touched as materialized (
    select user_id from segments.published_changes where tick_id > :consumed_tick
    union
    select unnest(array[merged.absorbed, merged.user_id]) from segments.merges_since(:consumed_tick) as merged
    union
    select user_id from experiences.assignments where experience = any(:changed)
    union
    select coalesce(offers.user_id, live.user_id)
    from experiences.journey_offers as offers
    full join (select * from experiences.live_ctas where source_kind = 'journey') as live
        on live.user_id = offers.user_id and live.surface = offers.surface and live.slot = offers.slot
    where
        (offers.source, offers.variant, offers.copy, offers.url, offers.starts_at, offers.ends_at)
        is distinct from (live.source, live.variant, live.copy, live.url, live.starts_at, live.ends_at)
),

chosen as materialized (
    select chosen.*
    from touched
    cross join lateral (
        select * from experiences.chosen_ctas where chosen_ctas.user_id = touched.user_id offset 0
    ) as chosen
),

gone as (
    delete from experiences.live_ctas as live
    using touched
    where live.user_id = touched.user_id and not exists (
        select from chosen
        where chosen.user_id = live.user_id and chosen.surface = live.surface and chosen.slot = live.slot
    )
    returning 1
),

written as (
    insert into experiences.live_ctas as live
    select * from chosen
    on conflict (user_id, surface, slot) do update
    set
        source = excluded.source,
        source_kind = excluded.source_kind,
        variant = excluded.variant,
        copy = excluded.copy,
        url = excluded.url,
        starts_at = excluded.starts_at,
        ends_at = excluded.ends_at,
        trigger = excluded.trigger
    where live is distinct from excluded
    returning 1
)

select (select count(*) from gone) + (select count(*) from written);

-- name: declared
select experience from experiences.definitions;

-- name: count_live
select count(*) from experiences.live_ctas;

-- name: changed_definitions
select name
from segments.changed_definitions(
    :consumer,
    (
        select jsonb_object_agg(
            experience,
            case
                when experiences.is_running(definition, :as_of) then md5(cast(definition as text))
                else 'does not run'
            end
        )
        from experiences.definitions
    )
) as changed (name);
