"""Results of unchanged targets, so that a warm run never imports torch."""

from dropout_lint.runs.cache.key import cache_key
from dropout_lint.runs.cache.store import Cache

__all__ = ["Cache", "cache_key"]
