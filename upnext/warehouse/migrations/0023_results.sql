-- Which side the look with the smallest always-valid p-value was for: 'arm' or 'control'.
alter table analytics.experiment_results add column p_favours text;

-- A version that is brought back is the newest again.
alter table journeys.definitions add column in_force_since timestamptz not null default '-infinity';
update journeys.definitions set in_force_since = first_dispatched_at;
