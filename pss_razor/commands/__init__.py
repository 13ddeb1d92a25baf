"""Console commands. ``tools/*.py`` call the same functions; importing one of them imports nothing slow."""
