{{ config(materialized='totals', key=['account_id']) }}

select
    account_users.account_id,
    {{ totals('account_features') }}
from {{ ref('account_users') }} as account_users
left join {{ ref('user_features') }} as user_features on account_users.user_id = user_features.user_id
group by account_users.account_id
