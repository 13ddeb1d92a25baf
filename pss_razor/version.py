"""The version of pss_razor."""

__version__ = "0.2.0"
