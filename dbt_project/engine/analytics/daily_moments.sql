{{ config(
    materialized='refreshed', is_rounded=true, key=['experiment', 'exposed_on', 'split', 'arm', 'metric'],
    recompute_with=['stale_moments', 'stale_outcomes', 'stale_exposures']
) }}

-- depends_on: {{ ref('experiment_users') }}, {{ ref('stale_outcomes') }}, {{ ref('stale_exposures') }}
select * from {{ ref('stale_moments') }}
