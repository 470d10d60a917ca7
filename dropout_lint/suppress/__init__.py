"""Findings that are known: ignore comments in the source, and the baseline. No torch here."""
