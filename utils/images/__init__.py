"""Images as files, and what is in them."""
