"""Fixes in source: libcst edits of the user's files, by pattern."""
