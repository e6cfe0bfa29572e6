with users as (
    select * from {{ ref('experiment_users') }} where kind = 'experience'
)

select
    segment,
    experiment,
    arm as variant,
    count(*) as exposed,
    count(*) filter (where has_clicked) as clicked
from users
where arm <> 'control'
group by segment, experiment, arm
