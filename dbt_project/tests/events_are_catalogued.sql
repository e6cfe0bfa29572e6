{{ config(severity='warn') }}
-- An event that nobody has declared: a new one, or a name that somebody mistyped.
select event from {{ ref('catalogue') }} where kind = 'new'
