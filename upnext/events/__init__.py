"""Raw events: decoding, source mappings, loading, and the checks on what came in."""
