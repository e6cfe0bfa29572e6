with events as (
    select * from {{ ref('user_events') }} where occurred_at <= {{ as_of() }}
)

select
    events.user_id,
    {{ feature_columns('user_features') }}
from events
group by events.user_id
