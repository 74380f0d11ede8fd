"""Flags that scripts share; no torch."""
