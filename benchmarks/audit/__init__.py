"""A lint of published models, as shipped and with rates that papers train with: see `__main__.py`."""
