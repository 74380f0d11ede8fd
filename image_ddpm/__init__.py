"""The task: plain image diffusion, and how good its images are."""
