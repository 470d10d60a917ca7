"""`python -m dropout_lint`, which is also how torchrun starts it."""

from __future__ import annotations

from dropout_lint.cli import main

if __name__ == "__main__":
    main()
