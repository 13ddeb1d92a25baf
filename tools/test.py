"""Evaluate a trained supernet, or a network: ``python tools/test.py CONFIG CHECKPOINT``; the same as ``pss-test``."""

from pss_razor.commands.test import main

if __name__ == "__main__":
    main()
