with users as (
    select * from {{ ref('experiment_users') }} where kind = 'experience' and arm <> 'control'
)

select
    segment,
    experiment,
    arm as variant,
    count(*) filter (where is_window_over) as exposed,
    count(*) filter (where is_window_over and has_clicked) as clicked,
    count(*) filter (where is_window_over and has_reached_goal) as converted,
    count(*) filter (where not is_window_over) as open
from users
group by segment, experiment, arm
