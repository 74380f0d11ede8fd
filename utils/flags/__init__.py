"""Flags that scripts share, and flags out of files; no torch."""
