"""Export subnets: ``python tools/export_subnets.py CONFIG CHECKPOINT --out-dir DIR``; the same as ``pss-export``."""

from pss_razor.commands.export import main

if __name__ == "__main__":
    main()
