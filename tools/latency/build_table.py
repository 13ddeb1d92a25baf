"""Measure latencies: ``python tools/latency/build_table.py CONFIG --device cpu --out FILE``; as ``pss-latency``."""

from pss_razor.commands.latency import main

if __name__ == "__main__":
    main()
