"""The images: lists, pairs for the networks, folds, the oracle."""
