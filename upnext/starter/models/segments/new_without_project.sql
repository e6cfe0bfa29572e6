select user_id
from {{ ref('user_features') }}
where sign_ups_14d >= 1 and projects_created = 0
