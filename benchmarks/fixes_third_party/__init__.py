"""What `fix --write` does to models of public packages that nobody here wrote: see `__main__.py`."""
