-- By which shares users were drawn, from when on: for whether the arms got the users that they should.
create table experiences.shares (
    experience text not null,
    since timestamptz not null,
    weights jsonb not null,
    primary key (experience, since)
);
insert into experiences.shares (experience, since, weights)
select experience, '-infinity', definition -> 'weights' from experiences.definitions;

-- What each user should see by the newest published tick. In each exclusive group of a user one experience wins, then
-- in each slot one call to action: a journey's offer first, then by priority. The variant is looked at last, so that
-- control holds its slot with a null copy. Whose variant was taken out of the file sees nothing of the experience.
drop view experiences.live_ctas;
create view experiences.chosen_ctas as
with clock as (
    select max(as_of) as as_of from segments.ticks where published_at is not null
),

offers as (
    select
        assignments.user_id,
        definitions.definition ->> 'surface' as surface,
        definitions.definition ->> 'slot' as slot,
        assignments.experience as source,
        'experience' as source_kind,
        assignments.variant,
        definitions.definition -> 'variants' -> assignments.variant ->> 'copy' as copy,
        definitions.definition -> 'variants' -> assignments.variant ->> 'url' as url,
        greatest(
            assignments.assigned_at, members.entered_at, (definitions.definition ->> 'starts_at')::timestamptz
        ) as starts_at,
        (definitions.definition ->> 'ends_at')::timestamptz as ends_at,
        definitions.definition -> 'trigger' as trigger,
        (definitions.definition ->> 'priority')::integer as priority,
        coalesce('group ' || (definitions.definition ->> 'exclusive_group'), assignments.experience) as exclusive_group
    from experiences.assignments
    inner join experiences.definitions on definitions.experience = assignments.experience
    inner join segments.current_members as members
        on members.segment = definitions.definition ->> 'segment' and members.user_id = assignments.user_id
    cross join clock
    where
        (assignments.variant = 'control' or definitions.definition -> 'variants' ? assignments.variant)
        and coalesce((definitions.definition ->> 'starts_at')::timestamptz <= clock.as_of, true)
        and coalesce((definitions.definition ->> 'ends_at')::timestamptz > clock.as_of, true)
    union all
    select
        messages.user_id,
        steps.definition ->> 'surface' as surface,
        steps.definition ->> 'slot' as slot,
        messages.journey as source,
        'journey' as source_kind,
        coalesce(messages.variant, messages.step) as variant,
        coalesce(steps.definition -> 'variants' -> messages.variant ->> 'copy', steps.definition ->> 'copy') as copy,
        coalesce(steps.definition -> 'variants' -> messages.variant ->> 'url', steps.definition ->> 'url') as url,
        messages.sent_at as starts_at,
        messages.ends_at,
        null::jsonb as trigger,
        1000 as priority,
        'message ' || messages.message_id as exclusive_group
    from journeys.messages
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.definitions
        on definitions.journey = entries.journey and definitions.version = entries.version
    inner join journeys.steps
        on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
    cross join clock
    where
        messages.channel = 'cta'
        and messages.status = 'sent'
        and entries.status in ('active', 'completed')
        and messages.ends_at > clock.as_of
        and (
            not cast(definitions.definition ->> 'exit_on_leaving' as boolean)
            or exists (
                select from segments.current_members as members
                where members.segment = definitions.definition ->> 'segment' and members.user_id = messages.user_id
            )
        )
),

winners as (
    select distinct on (user_id, exclusive_group) *
    from offers
    order by user_id, exclusive_group, priority desc, source
)

select distinct on (user_id, surface, slot)
    user_id, surface, slot, source, source_kind, variant, copy, url, starts_at, ends_at, trigger
from winners
order by user_id, surface, slot, priority desc, source, starts_at desc;

-- What a site or an app asks for: one look-up by its key.
create table experiences.live_ctas (
    user_id text not null,
    surface text not null,
    slot text not null,
    source text not null,
    source_kind text not null check (source_kind in ('experience', 'journey')),
    variant text not null,
    copy text,
    url text,
    starts_at timestamptz not null,
    ends_at timestamptz,
    trigger jsonb,
    primary key (user_id, surface, slot)
);
insert into experiences.live_ctas select * from experiences.chosen_ctas;

-- What is known of a result beside its interval: what the goal was (results of another goal are not earlier looks at
-- this one), open windows, users seen in both arms, what could be detected, and what to do.
alter table analytics.experiment_results
    add column type text,
    add column goal_version text,
    add column n_open_control bigint,
    add column n_open_arm bigint,
    add column n_both_control bigint,
    add column n_both_arm bigint,
    add column diff_always_low double precision,
    add column diff_always_high double precision,
    add column minimal_detectable_lift double precision,
    add column days_left bigint,
    add column decision text;
create index experiment_results_by_experiment
on analytics.experiment_results (experiment, metric, arm, goal_version, as_of);

alter table analytics.copy_ranking
    add column converted bigint,
    add column open bigint,
    add column goal_rate double precision,
    add column goal_low double precision,
    add column goal_high double precision,
    add column goal_rank integer,
    add column is_best_by_clicks boolean,
    add column is_best_by_goals boolean;

create table analytics.segment_results (
    as_of timestamptz not null,
    segment text not null,
    experiment text not null,
    arm text not null,
    reference text not null,
    n_reference bigint not null,
    n_arm bigint not null,
    mean_reference double precision not null,
    mean_arm double precision not null,
    lift double precision,
    lift_low double precision,
    lift_high double precision,
    p_value double precision,
    p_adjusted double precision,
    finding text not null,
    reason text,
    primary key (as_of, segment, experiment, arm, reference)
);
