"""Where a denoising network, a diffusion process and the training loop meet, for every task."""
