{{ config(materialized='features', key=['user_id'], recompute_with=['identity_links']) }}

-- depends_on: {{ ref('identity_links') }}
select * from {{ ref('user_events') }}
