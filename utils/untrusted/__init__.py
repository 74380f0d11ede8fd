"""Files of anybody, read without running anything that is in them."""
