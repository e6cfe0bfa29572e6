create schema if not exists experiences;

create table experiences.definitions (
    experience text primary key,
    definition jsonb not null
);

create table experiences.assignments (
    experience text not null,
    user_id text not null,
    variant text not null,
    assigned_at timestamptz not null,
    primary key (experience, user_id)
);
create index assignments_by_user on experiences.assignments (user_id);

-- One call to action per user, surface and slot: a journey's offer first, then experiences by priority.
-- The winner is chosen before its variant is looked at, so control holds its slot with a null copy.
create view experiences.live_ctas as
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
        greatest(assignments.assigned_at, members.entered_at) as starts_at,
        null::timestamptz as ends_at,
        (definitions.definition ->> 'priority')::integer as priority
    from experiences.assignments
    inner join experiences.definitions on definitions.experience = assignments.experience
    inner join segments.current_members as members
        on members.segment = definitions.definition ->> 'segment' and members.user_id = assignments.user_id
    union all
    select
        messages.user_id,
        steps.step ->> 'surface' as surface,
        steps.step ->> 'slot' as slot,
        messages.journey as source,
        'journey' as source_kind,
        messages.step as variant,
        steps.step ->> 'copy' as copy,
        steps.step ->> 'url' as url,
        messages.sent_at as starts_at,
        messages.ends_at,
        1000 as priority
    from journeys.messages
    inner join journeys.entries on entries.entry_id = messages.entry_id
    inner join journeys.definitions
        on definitions.journey = entries.journey and definitions.version = entries.version
    cross join lateral jsonb_array_elements(definitions.definition -> 'steps') as steps (step)
    cross join clock
    where
        messages.channel = 'cta'
        and messages.status = 'sent'
        and steps.step ->> 'name' = messages.step
        and entries.status in ('active', 'completed')
        and messages.ends_at > clock.as_of
        and (
            not cast(definitions.definition ->> 'exit_on_leaving' as boolean)
            or exists (
                select from segments.current_members as members
                where members.segment = definitions.definition ->> 'segment' and members.user_id = messages.user_id
            )
        )
)

select distinct on (user_id, surface, slot)
    user_id, surface, slot, source, source_kind, variant, copy, url, starts_at, ends_at
from offers
order by user_id, surface, slot, priority desc, source;
