"""Segments: current members, past members, and previews."""
