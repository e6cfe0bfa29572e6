"""Features: the keys that describe a feature column."""
