{{ config(
    materialized='refreshed', key=['user_id', 'experiment'],
    indexes=['(closes_at) where not is_window_over', '(experiment, exposed_on) where is_window_over'],
    recompute_with=['stale_outcomes', 'stale_exposures', 'experiments', 'user_events', 'identified_events']
) }}

-- depends_on: {{ ref('stale_exposures') }}, {{ ref('experiments') }}
-- depends_on: {{ ref('user_events') }}, {{ ref('identified_events') }}
select * from {{ ref('stale_outcomes') }}
