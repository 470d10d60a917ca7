"""What the proof process and its client agree on."""

from __future__ import annotations

import os

FORK = hasattr(os, "fork")
"""Whether the proof process is made of the client's own, which has loaded torch, and each job of that."""
IMPORT = "import "
"""How a line begins that names a module to import before a job asks for it; other lines name jobs."""
