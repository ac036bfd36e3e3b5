"""Programs that use sepconv as a reader would; each runs with `python -m sepconv.examples.NAME`."""
