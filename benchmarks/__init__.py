"""Measurements that back the figures of the documentation; each file is a script of its own."""
