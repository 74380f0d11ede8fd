"""Kernels that networks use on a CPU."""
