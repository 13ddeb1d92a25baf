"""Exact sampling conditional on a resource, and the sampler interface that all methods share."""
