"""Tools around the method, run as `python -m dev.NAME`."""
