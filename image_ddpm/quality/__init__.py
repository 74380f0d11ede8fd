"""How good generated images are: distances between sets, and figures of pairs."""
