"""Journeys: their definitions, the dispatch that moves users along, and the channels that reach them."""
