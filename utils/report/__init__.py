"""Pages that run nothing foreign, and their plots."""
