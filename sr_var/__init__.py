"""Task: conditional mean and variance of a high-res image given its low-res version."""

__version__ = "0.1.0"
