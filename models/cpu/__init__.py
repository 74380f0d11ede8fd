"""Layers that are faster on a CPU than torch's, and the rules that say where (`rules`)."""
