"""Channels: they send messages and record the receivers' answers."""
