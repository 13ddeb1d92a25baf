"""Classify images: ``python tools/predict.py BUNDLE IMAGE…``; the same as ``pss-predict``."""

from pss_razor.commands.predict import main

if __name__ == "__main__":
    main()
