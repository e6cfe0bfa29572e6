"""Computes the product's three segments from Parquet with DuckDB, in an environment of its own."""

import json
import sys
import time

import duckdb

SQL = """
with users as (
    select
        user_id,
        count(*) filter (where event = 'login' and occurred_at > {at} - interval 30 days) as logins_30d,
        count(*) filter (where event = 'created ml task' and occurred_at > {at} - interval 30 days) as ml_tasks_30d,
        count(*) filter (where event = 'viewed upgrade plan' and occurred_at > {at} - interval 5 days) as views_5d,
        count(*) filter (where event = 'product viewed') as products_viewed,
        arg_max(event, (occurred_at, source, message_id)) filter (
            where event in ('subscribed to basic plan', 'subscribed to premium plan')) as plan,
        bool_or(event = 'subscribed to premium plan') as is_premium,
        bool_or(event = 'subscribed newsletter') as has_newsletter,
        count(*) filter (where event = 'login' and occurred_at > {at} - interval 10 days) as logins_10d,
        count(*) filter (where event = 'created object' and occurred_at > {at} - interval 10 days) as objects_10d
    from read_parquet('{path}')
    where occurred_at <= {at}
    group by user_id
)
select
    count(*) filter (where plan = 'subscribed to basic plan' and products_viewed >= 1 and logins_30d >= 10
        and ml_tasks_30d >= 5),
    count(*) filter (where views_5d >= 1 and has_newsletter and not coalesce(is_premium, false)),
    count(*) filter (where is_premium and logins_10d = 0 and objects_10d = 0)
from users
"""

if __name__ == "__main__":
    path, as_of = sys.argv[1:]
    connection = duckdb.connect()
    connection.execute("set threads = 2; set timezone = 'UTC'")
    best = None
    for _ in range(3):
        started = time.perf_counter()
        counts = connection.execute(SQL.format(path=path, at=f"timestamptz '{as_of}'")).fetchone()
        best = min(best or 1e9, time.perf_counter() - started)
    names = ("basic_plan_power_users", "upgrade_curious", "low_usage_paid_users")
    print(json.dumps({"seconds": best, "members": dict(zip(names, counts or (), strict=True))}))
