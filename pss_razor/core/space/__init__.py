"""What can be chosen, and what a choice costs: subnets, search spaces, costs, constraints, widths."""
