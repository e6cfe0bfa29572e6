{{ config(
    materialized='daily_moments', key=['experiment', 'exposed_on', 'split', 'arm', 'metric'],
    recompute_with=['stale_moments']
) }}

-- depends_on: {{ ref('experiment_users') }}
select * from {{ ref('stale_moments') }}
