"""The networks; nothing here knows data, files, devices or diffusion.

Importing the package costs nothing: `models.config` works without torch,
the networks live in `models.unet` and `models.encoder`.
"""
