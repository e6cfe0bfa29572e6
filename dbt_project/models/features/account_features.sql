with events as (
    select * from {{ ref('user_events') }} where occurred_at <= {{ as_of() }} and account_id is not null
)

select
    events.account_id,
    {{ feature_columns('account_features') }}
from events
group by events.account_id
