"""Runs over targets: check, fix and measure, in processes of their own, with a cache."""
