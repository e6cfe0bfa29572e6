"""The Dagster entry point: `definitions.py` lists everything that Dagster sees."""
