"""Ticks: the `as_of` of a tick, its opening and publication, and the offset of each consumer."""
