"""Samplers of the baselines: US-Net, MutualNet, uniform sampling."""
