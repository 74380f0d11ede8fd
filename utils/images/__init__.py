"""Images: files, folders, data sets of crops."""
