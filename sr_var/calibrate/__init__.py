"""Intervals that keep their promise: the factor of the std by held-out images with their truth.

risk, units, record → run.
"""
