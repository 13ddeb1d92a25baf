"""What Prioritized Subnet Sampling keeps and draws."""
