"""Train a supernet, or a single network: ``python tools/train.py CONFIG``; the same as ``pss-train``."""

from pss_razor.commands.train import main

if __name__ == "__main__":
    main()
