"""Crops of images, and data sets of them: cut from files, with a partner or not, and kept."""
