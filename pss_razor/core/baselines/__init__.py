"""What the baselines draw: US-Net, MutualNet, uniform sampling."""
