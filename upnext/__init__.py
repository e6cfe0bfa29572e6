"""Upnext, the product: it reads what users do and decides what to show them next. It does not import Dagster."""
