create or replace function experiences.is_running(definition jsonb, at timestamptz) returns boolean
language sql stable parallel safe
return coalesce((definition ->> 'is_started')::boolean, true)
    and coalesce(at >= (definition ->> 'starts_at')::timestamptz, true)
    and coalesce(at < (definition ->> 'ends_at')::timestamptz, true);

-- The open offers of journeys.
create or replace view experiences.journey_offers as
select
    messages.user_id,
    steps.definition ->> 'surface' as surface,
    steps.definition ->> 'slot' as slot,
    messages.journey as source,
    coalesce(messages.variant, messages.step) as variant,
    coalesce(steps.definition -> 'variants' -> messages.variant ->> 'copy', steps.definition ->> 'copy') as copy,
    coalesce(steps.definition -> 'variants' -> messages.variant ->> 'url', steps.definition ->> 'url') as url,
    messages.sent_at as starts_at,
    messages.ends_at,
    messages.message_id
from journeys.messages
inner join journeys.entries on entries.entry_id = messages.entry_id
inner join journeys.definitions
    on definitions.journey = entries.journey and definitions.version = entries.version
inner join journeys.steps
    on steps.journey = entries.journey and steps.version = entries.version and steps.step = messages.step
where
    messages.channel = 'cta'
    and messages.status = 'sent'
    and entries.status in ('active', 'completed')
    and messages.ends_at > (select max(as_of) from segments.published_ticks)
    and (
        not cast(definitions.definition ->> 'exit_on_leaving' as boolean)
        or exists (
            select from segments.current_members as members
            where members.segment = definitions.definition ->> 'segment' and members.user_id = messages.user_id
        )
    );

-- The winner of each slot. In each exclusive group of a user one experience wins, then in each slot one call to action:
-- a journey's offer first, then by priority. The variant is applied last, so that control holds its slot with a null
-- copy. A user whose variant was removed from the file sees nothing of the experience.
create or replace view experiences.chosen_ctas as
with clock as (
    select max(as_of) as as_of from segments.published_ticks
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
        and experiences.is_running(definitions.definition, clock.as_of)
    union all
    select
        user_id, surface, slot, source, 'journey' as source_kind, variant, copy, url, starts_at, ends_at,
        null::jsonb as trigger,
        1000 as priority,
        'message ' || message_id as exclusive_group
    from experiences.journey_offers
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

-- Members whom a running experience may assign now: all of them for those that `changed`, for others those who have
-- entered since a tick.
create or replace function experiences.candidates(at_instant timestamptz, changed text [], since_tick bigint)
returns table (experience text, user_id text)
language sql stable
as $$
    with running as (
        select definitions.experience, definitions.definition ->> 'segment' as segment
        from experiences.definitions
        where experiences.is_running(definitions.definition, at_instant)
    )

    select running.experience, members.user_id
    from running
    inner join segments.current_members as members on members.segment = running.segment
    where running.experience = any(changed)
    union all
    select running.experience, members.user_id
    from segments.published_changes as changes
    inner join segments.current_members as members
        on members.segment = changes.segment and members.user_id = changes.user_id
    inner join running on running.segment = members.segment
    where changes.tick_id > since_tick and running.experience <> all(changed)
$$;

-- Whether the global holdout has kept a user from an experience or a journey.
create or replace function experiences.was_held_out(of_user text) returns boolean
language sql stable
return exists (select from experiences.held_out where held_out.user_id = of_user)
or exists (select from journeys.entries where entries.user_id = of_user and entries.is_held_out_globally);

-- The users whose calls to action these ids ask for: a user who was merged is asked for by the old id too. In plpgsql,
-- because the first build makes the table of identities, and pages ask before.
create or replace function experiences.asked_for(ids text []) returns table (id text, user_id text)
language plpgsql stable
as $$
begin
    if to_regclass('events.identity_links') is null then
        return query select asked.id, asked.id from unnest(ids) as asked (id);
    else
        return query
        select asked.id, coalesce(links.user_id, asked.id)
        from unnest(ids) as asked (id)
        left join events.identity_links as links on links.kind = 'user' and links.id = asked.id;
    end if;
end
$$;
