select user_id
from {{ ref('user_features') }} as features
where
    (user_id in (select user_id from {{ ref('active') }}) and (upgrade_plan_views_5d >= 1 or products_viewed >= 1))
    or not (logins_30d >= 1 or user_id in (select others.user_id from {{ ref('active') }} as others))
