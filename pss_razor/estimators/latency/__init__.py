"""Latency: tables of blocks, measuring and filling them."""
