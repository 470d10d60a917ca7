"""Predictions on models of public packages that nobody here wrote: see `__main__.py`."""
