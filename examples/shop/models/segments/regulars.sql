select user_id
from {{ ref('user_features') }}
where orders_365d >= 3
