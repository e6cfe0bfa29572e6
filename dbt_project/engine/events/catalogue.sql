{%- set events_by_kind = {'declared': catalogue().get('events', {}), 'derived': catalogue().get('derived', {})} -%}
with declared (event, kind, description, owner) as (
    values
    {%- for kind, events in events_by_kind.items() %}
        {%- for name, event in events.items() %}
    ({{ quoted([name, kind, event.description, event.owner]) }}),
        {%- endfor %}
    {%- endfor %}
    (null, null, null, null)
),

-- a view over {{ source('raw', 'events') }}
seen as (
    select * from raw.event_names
)

select
    coalesce(declared.event, seen.event) as event,
    coalesce(declared.kind, 'new') as kind,
    declared.description,
    declared.owner,
    seen.first_at,
    seen.last_at
from declared
full join seen on declared.event = seen.event
where declared.event is not null or seen.event is not null
