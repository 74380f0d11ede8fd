"""The plain way to do the same work, to measure against: eager, contiguous, step by step.

Written for reading and not for speed, and independent of the code that is measured; only the list
of hyper-parameters (`models.config.UNetConfig`) is shared. `tests/benchmarks/test_reference.py`
holds the numbers together.
"""
