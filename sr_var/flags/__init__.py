"""The flags of the super-resolution scripts; no torch."""
