"""Prioritized Subnet Sampling: its pools, its sampler and its schedules."""
