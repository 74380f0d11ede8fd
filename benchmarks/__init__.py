"""Measurements that back figures of the documentation: scripts, and what they share."""
