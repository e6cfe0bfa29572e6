"""Sensors: each a pure `decide` and a thin Dagster shell that only reads and requests runs."""
