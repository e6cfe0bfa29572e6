select user_id
from {{ ref('user_features') }}
where last_object_created_at is not null and objects_created_10d = 0
