-- What to know beside a decision.
alter table analytics.experiment_results add column note text;
