"""Engineering shared by every task: files, images, metrics, logging, training and test loops.

Not for networks, diffusion mathematics or anything that only one task needs. Importing the
package imports none of its modules.
"""
