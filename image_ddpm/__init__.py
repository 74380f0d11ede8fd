"""The task: plain image diffusion, the images it learns from, and how good those it draws are."""
