"""People: what is known of one of them."""
