"""The owners of assets by group, the same as in dbt's groups (dbt_project/engine/_groups.yml)."""

DATA = ["data@otto.example"]
ANALYTICS = ["analytics@otto.example"]
GROWTH = ["growth@otto.example"]
