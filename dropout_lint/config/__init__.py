"""Configuration: settings and how they are read. No torch here."""

from dropout_lint.config.load import convert, load, suggest
from dropout_lint.config.settings import DropoutClass, Loaded, Settings, TargetSettings

__all__ = ["DropoutClass", "Loaded", "Settings", "TargetSettings", "convert", "load", "suggest"]
