"""Who is asked about an asset, by group: the same people as dbt's groups name (dbt_project/models/_groups.yml)."""

DATA = ["data@otto.example"]
ANALYTICS = ["analytics@otto.example"]
GROWTH = ["growth@otto.example"]
