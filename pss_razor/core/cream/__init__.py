"""What Cream keeps and draws: its search space, the board of prioritized paths."""
