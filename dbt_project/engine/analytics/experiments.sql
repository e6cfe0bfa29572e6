with declared as (
    select * from {{ source('experiences', 'definitions') }}
),

experiences as (
    select
        experience as experiment,
        'experience' as kind,
        definition ->> 'segment' as segment,
        definition -> 'goal' as goal,
        cast(definition ->> 'minimum_lift' as double precision) as minimum_lift,
        '' as rules
    from declared
),

{# The newest version defines the goal, whichever version a user entered with. #}
journeys as (
    select distinct on (journey)
        journey as experiment,
        'journey' as kind,
        coalesce(definition ->> 'segment', '') as segment,
        definition -> 'goal' as goal,
        coalesce(cast(definition ->> 'minimum_lift' as double precision), 0.1) as minimum_lift,
        '' as rules
    from {{ source('journeys', 'definitions') }}
    order by journey asc, in_force_since desc
),

programme as (
    select
        name as experiment,
        'programme' as kind,
        '' as segment,
        goal,
        minimum_lift,
        '' as rules
    from {{ source('analytics', 'programme') }}
),

{# The rules of an experience against the best single copy for all, and against chance. #}
learned as (
    select
        declared.experience || '/' || measured.against as experiment,
        'policy' as kind,
        declared.definition ->> 'segment' as segment,
        declared.definition -> 'goal' as goal,
        cast(declared.definition ->> 'minimum_lift' as double precision) as minimum_lift,
        declared.definition ->> 'learned' as rules
    from declared
    cross join (values ('rules_over_single'), ('rules_over_chance')) as measured (against)
    where declared.definition ->> 'learned' is not null
),

experiments as (
    select * from experiences
    union all
    select * from journeys
    union all
    select * from programme
    union all
    select * from learned
)

select
    experiment,
    kind,
    segment,
    minimum_lift,
    array(select jsonb_array_elements_text(nullif(goal -> 'any_of', 'null'))) as goal_events,
    nullif(jsonb_strip_nulls(jsonb_build_object('where', goal -> 'where', 'context', goal -> 'context')), '{}')
        as goal_conditions,
    goal ->> 'any_of' is null as is_goal_of_entries,
    cast(goal ->> 'within' as interval) as goal_within,
    {# Other rules are another experiment. #}
    md5(cast(goal as text) || rules) as goal_version
from experiments
