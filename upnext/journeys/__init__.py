"""Journeys: their definitions, the dispatch that moves people along, and the channels that reach them."""
