"""Task: what a classifier learns from labels that are wrong by a known law."""
