"""The task: plain image diffusion, and the image folders it learns from."""
