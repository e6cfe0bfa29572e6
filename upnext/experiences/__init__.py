"""Experiences: calls to action per segment, surface and slot, with a control group."""
