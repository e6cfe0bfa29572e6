"""Ticks: which instant a tick computes at, how it is opened and published, and how far each consumer has come."""
