"""Methods, pools and published figures compared, from what evaluations left; no training needs it."""

from pss_razor import registry  # noqa: F401 - mends the stack before a module here imports mmrazor
