-- What users see.

-- name: decide
select
    live.user_id,
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
from experiences.live_ctas as live
left join experiences.definitions on definitions.experience = live.source and live.source_kind = 'experience'
where live.user_id = any(cast(:users as text []));
