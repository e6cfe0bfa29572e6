with users as (
    select * from {{ ref('experiment_users') }} where arm <> 'control'
),

experiments as (
    select * from {{ ref('experiments') }} where kind = 'experience'
)

select
    experiments.segment,
    users.experiment,
    users.split,
    users.arm as variant,
    count(*) filter (where users.is_window_over) as exposed,
    count(*) filter (where users.is_window_over and users.has_clicked) as clicked,
    count(*) filter (where users.is_window_over and users.has_reached_goal) as converted,
    count(*) filter (where not users.is_window_over) as open
from users
inner join experiments on users.experiment = experiments.experiment
group by experiments.segment, users.experiment, users.split, users.arm
