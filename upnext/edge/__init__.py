"""The edge: the one HTTP process. It takes events from Segment's clients and keeps no state but its queue."""
