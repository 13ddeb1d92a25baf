"""Hooks."""

from pss_razor.engine.hooks.prioritized_pool_sampler_hook import PrioritizedPoolSamplerHook

__all__ = ["PrioritizedPoolSamplerHook"]
