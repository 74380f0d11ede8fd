"""Gaussian diffusion on tensors and callables: schedules, the process, samplers, likelihoods.

No networks, files, ranks or flags: a network comes in as a callable `model(x, t, **model_kwargs)`.
"""
