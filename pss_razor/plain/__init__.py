"""Training and measuring in plain PyTorch, without a config: :func:`pss_razor.fit` and :func:`pss_razor.evaluate`."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
