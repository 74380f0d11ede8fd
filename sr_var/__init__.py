"""Task: conditional mean and variance of a high-res image given its low-res version."""
