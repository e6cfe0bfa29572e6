select user_id
from {{ ref('user_features') }}
where
    has_subscribed_premium
    and logins_10d = 0
    and objects_created_10d = 0
