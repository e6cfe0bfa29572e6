"""How often Python looks for garbage that refers to itself: seldom, because most of what a tick loads stays.

As often as Python does by itself, it took a sixth of a tick.
"""

import gc


def collect_seldom() -> None:
    """Look for such garbage after 50,000 new objects, not 700; what is not referred to any more is freed at once."""
    gc.set_threshold(50_000, 20, 100)
