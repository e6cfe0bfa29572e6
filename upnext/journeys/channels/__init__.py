"""Channels: what leaves the house, and what the other side answers."""
