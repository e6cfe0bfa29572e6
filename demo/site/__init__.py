"""Otto's own website, small: the script of the edge in it, and a switch to be one of Otto's users."""
