"""Upnext, the product: what users do, and what to put before them next. It knows no Dagster."""
