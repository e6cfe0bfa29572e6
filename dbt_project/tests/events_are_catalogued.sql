{{ config(severity='warn') }}
-- An undeclared event: a new one, or a mistyped name.
select event from {{ ref('catalogue') }} where kind = 'new'
