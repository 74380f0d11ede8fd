"""Folders of labelled images out of archives and data sets that people have."""
