select user_id
from {{ ref('user_features') }}
where
    is_on_basic_plan
    and products_viewed >= 1
    and logins_30d >= 10
    and ml_tasks_created_30d >= 5
