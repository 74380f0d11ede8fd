"""A real two-node Slurm on this machine: preemption, time limits, arrays, the whole chain."""
