{{ config(materialized='features', key=['user_id'], recompute_with=['identity_links']) }}

-- depends_on: {{ ref('identity_links') }}
with events as not materialized (
    select * from {{ ref('user_events') }}
)

{{ features_of_events() }}
