select account_id
from {{ ref('account_features') }}
where active_users_30d >= 2 or members_on_premium >= 1
