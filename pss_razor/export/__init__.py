"""Export: choose subnets, write them as static networks in several formats, compare and measure them."""
