with events as (
    select * from {{ source('raw', 'events') }}
)

select
    user_id,
    account_id,
    type,
    event,
    occurred_at,
    source,
    message_id,
    properties,
    context
from events
where user_id is not null
