-- What a segment had members of when it was evaluated: `user_id` or `account_id`; null in evaluations before this one.
alter table segments.evaluations add column unit text;
