"""Metrics, intervals, the verdict and the error budget; draws nothing and prints nothing."""
