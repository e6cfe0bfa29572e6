-- What users see, as one JSON text for each user: the edge compares the text before it reads it.

-- name: decide
select
    asked.id as user_id,
    cast(json_agg(
        json_build_object(
            'flag', live.surface || '.' || live.slot,
            'source', live.source,
            'source_kind', live.source_kind,
            'variant', live.variant,
            'copy', live.copy,
            'url', live.url,
            'trigger', live.trigger,
            'starts_at', live.starts_at,
            'ends_at', live.ends_at,
            'steps', definitions.definition -> 'variants' -> live.variant -> 'steps',
            'is_public', coalesce(cast(definitions.definition ->> 'public' as boolean), false)
        )
        order by live.surface, live.slot
    ) as text) as shown
from experiences.asked_for(cast(:users as text [])) as asked
inner join experiences.live_ctas as live on live.user_id = asked.user_id
left join experiences.definitions on definitions.experience = live.source and live.source_kind = 'experience'
group by asked.id;
