"""`dropout-lint serve`: a language server for editors, over stdin and stdout."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import rich_click as click

from dropout_lint.cli import console, options
from dropout_lint.config import load
from dropout_lint.errors import UsageError


@click.command("serve", context_settings={"help_option_names": ["-h", "--help"]})
@options.config()
@click.option("--stdio", is_flag=True, help="Talk over stdin and stdout, as it does without it.")
def command(config: str | None, stdio: bool) -> int:
    """Show findings in an editor: a language server (LSP) over stdin and stdout, started by the editor.

    It lints the configured targets when a file of the workspace is saved, in processes of their own,
    publishes the findings, and offers what `dropout-lint fix` would write, and ignore comments, as code
    actions. docs/editors.md has settings for VS Code, Neovim and Helix. Needs the extra `serve`.
    """
    if config is not None and not Path(config).is_file():
        load(config)
    if find_spec("pygls") is None:
        raise UsageError(
            "`dropout-lint serve` needs pygls, which is not installed", "pip install 'dropout-lint[serve]'"
        )
    from dropout_lint.editor.server import Server

    if sys.stdin.isatty():
        console.say("waiting for an editor on stdin (docs/editors.md says how to set one up); Ctrl-C ends it")
    server = Server(None if config is None else str(Path(config).absolute()))
    with os.fdopen(os.dup(0), "rb") as stdin, os.fdopen(os.dup(1), "wb") as stdout:
        os.dup2(2, 1)  # whatever else is printed is none of the protocol's
        server.run(stdin, stdout)
    return 0
