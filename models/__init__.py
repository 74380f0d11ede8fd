"""The networks; nothing here knows data, files, devices or diffusion.

Importing the package costs nothing: `models.config` and `models.config` work without torch,
the networks live in `models.unet` and `models.encoder`.
"""
