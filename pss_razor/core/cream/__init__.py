"""Cream: its search space, the board of prioritized paths, and the sampler of paths."""
