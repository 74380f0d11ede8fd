"""Trained networks for other programs: their weights and computations in files that others read."""
