"""Judging nets and samples: figures, floors, calibration, the error budget, and the report of them.

Not for training, testing or sampling, whose files it reads.
"""
