"""Judging nets and samples: rooms that point one way, `run` → `show` → `numbers` → `read`.

Not for training, testing or sampling, whose files it reads.
"""
