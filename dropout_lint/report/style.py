"""ANSI styles, or none; no meaning is carried by colour alone."""

from __future__ import annotations

from dataclasses import dataclass

SEVERITY_STYLES = {"error": "1;31", "warning": "1;33", "info": "1;34"}
SHIFT_STYLES = {"harmless": "32", "slight": "33", "moderate": "33", "strong": "31", "severe": "1;31"}


@dataclass(frozen=True)
class Style:
    """Paints text where `color` is set.

    Attributes:
        color: whether to paint.
    """

    color: bool

    def paint(self, text: str, code: str) -> str:
        """`text` between an ANSI code and a reset."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.color and text else text

    def strong(self, text: str) -> str:
        """Bold."""
        return self.paint(text, "1")

    def dim(self, text: str) -> str:
        """Faint."""
        return self.paint(text, "2")

    def error(self, text: str) -> str:
        """As an error."""
        return self.paint(text, "1;31")

    def warning(self, text: str) -> str:
        """As a warning."""
        return self.paint(text, "33")

    def good(self, text: str) -> str:
        """As good news."""
        return self.paint(text, "32")

    def severity(self, text: str, severity: str) -> str:
        """By the severity of a finding."""
        return self.paint(text, SEVERITY_STYLES[severity])

    def shift(self, text: str, word: str) -> str:
        """By how bad a Δ is (`words.severity_of_shift`)."""
        return self.paint(text, SHIFT_STYLES.get(word, "2"))
