"""What the training and test loops stand on: state, checkpoints, data order, networks."""
