"""How X comes from Y: a registry of degradations, and the words that name them."""
