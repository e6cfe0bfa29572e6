with events as not materialized (
    select * from {{ ref('identified_events') }}
)

select *, false as is_derived from events
{%- for name, derived in catalogue().get('derived', {}).items() %}
union all
select
    events.user_id,
    events.account_id,
    'track' as type,
    {{ quoted([name]) }} as event,
    events.occurred_at,
    events.source,
    events.message_id,
    events.properties,
    events.context,
    events.load_id,
    true as is_derived
from events
where {{ derived_condition(derived) }}
{%- endfor %}
