"""Dagster assets and checks, a module for each subject. They hold no rule: what they do is in `upnext`."""
