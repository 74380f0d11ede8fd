"""The task: plain image diffusion, with or without classes."""
