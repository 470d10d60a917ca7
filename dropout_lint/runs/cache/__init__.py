"""Results of unchanged targets, so that a warm run never imports torch."""

from dropout_lint.runs.cache.store import Cache, key_of

__all__ = ["Cache", "key_of"]
