"""The roof: `definitions.py` lists everything that Dagster sees."""
