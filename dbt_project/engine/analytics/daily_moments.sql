{{ config(
    materialized='refreshed', is_rounded=true, key=['experiment', 'exposed_on', 'split', 'arm', 'metric'],
    recompute_with=['stale_moments', 'experiment_users']
) }}

-- depends_on: {{ ref('experiment_users') }}
select * from {{ ref('stale_moments') }}
