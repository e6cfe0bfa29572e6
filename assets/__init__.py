"""Dagster assets and checks, a module for each subject. They hold no rules; the logic is in `upnext`."""
