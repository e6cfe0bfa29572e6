{{ config(
    materialized='kept_up', key=['experiment', 'exposed_on', 'split', 'arm', 'metric'], recompute_with=['stale_moments'],
    kept_up_by='analytics.experiment_users'
) }}

select * from {{ ref('stale_moments') }}
