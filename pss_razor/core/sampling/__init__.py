"""Draws conditional on a resource, whatever the method: exact samplers, and the interface of what uses them."""
