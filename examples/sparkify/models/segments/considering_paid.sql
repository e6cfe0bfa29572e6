select user_id
from {{ ref('user_features') }}
where upgrade_plan_views_5d >= 1 and not has_subscribed_premium
