select user_id
from {{ ref('user_features') }}
order by logins_10d desc, user_id collate "C"
limit 2
