-- What users see.

-- name: decide
select
    asked.id as user_id,
    live.surface || '.' || live.slot as flag,
    live.source,
    live.source_kind,
    live.variant,
    live.copy,
    live.url,
    live.trigger,
    live.starts_at,
    live.ends_at,
    definitions.definition -> 'variants' -> live.variant -> 'steps' as steps,
    coalesce(cast(definitions.definition ->> 'public' as boolean), false) as is_public
from experiences.asked_for(cast(:users as text [])) as asked
inner join experiences.live_ctas as live on live.user_id = asked.user_id
left join experiences.definitions on definitions.experience = live.source and live.source_kind = 'experience';
