-- Words such as "limit" or a 'join' in text and comments do not count.
select user_id
from {{ ref('user_features') }}
where logins_10d >= 2 and 'group by' <> 'having' /* over (select) */
