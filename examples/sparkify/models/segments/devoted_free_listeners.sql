select user_id
from {{ ref('user_features') }}
where objects_created_10d >= 100 and not has_subscribed_premium
