"""Segments: who is in one, was in one, or would be."""
