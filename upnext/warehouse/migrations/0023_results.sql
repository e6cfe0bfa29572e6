-- Which side the look with the smallest always-valid p-value was for: 'arm' or 'control'.
alter table analytics.experiment_results add column p_favours text;

-- The running minimum is that of the first row that has it.
update analytics.experiment_results as results
set p_favours = case when looks.diff > 0 then 'arm' when looks.diff < 0 then 'control' end
from (
    select distinct on (experiment, metric, arm, goal_version, p_always_valid)
        experiment, metric, arm, goal_version, p_always_valid, diff
    from analytics.experiment_results
    where p_always_valid is not null
    order by experiment, metric, arm, goal_version, p_always_valid, as_of
) as looks
where
    results.experiment = looks.experiment
    and results.metric = looks.metric
    and results.arm = looks.arm
    and results.goal_version is not distinct from looks.goal_version
    and results.p_always_valid = looks.p_always_valid;

-- A version that is brought back is the newest again.
alter table journeys.definitions add column in_force_since timestamptz not null default '-infinity';
update journeys.definitions set in_force_since = first_dispatched_at;
