"""Our places, problems and edits as the Language Server Protocol has them, and paths as its addresses."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lsprotocol import types as lsp
from pygls.uris import from_fs_path, to_fs_path
from pygls.workspace import PositionCodec, TextDocument, Workspace

from dropout_lint.editor.problems import Problem
from dropout_lint.errors import DropoutLintError
from dropout_lint.report.locations import source
from dropout_lint.report.schema import EditInfo, Place
from dropout_lint.suppress.add_ignores import read

SOURCE = "dropout-lint"
SEVERITIES = {
    "error": lsp.DiagnosticSeverity.Error,
    "warning": lsp.DiagnosticSeverity.Warning,
    "info": lsp.DiagnosticSeverity.Information,
}


class Translator:
    """Translates for one workspace.

    Args:
        root: the workspace's folder as the editor names it; the current folder may be its real path.
        workspace: the editor's open documents, and in what units it counts columns.
    """

    def __init__(self, root: str, workspace: Workspace) -> None:
        self.root = root
        self.workspace = workspace

    @property
    def codec(self) -> PositionCodec:
        """How the editor counts columns."""
        return self.workspace.position_codec

    def address(self, file: str) -> str:
        """The address of a file, as the editor has it where it is open."""
        document = self.document(file)
        return document.uri if document is not None else from_fs_path(self.path(file)) or ""

    def document(self, file: str) -> TextDocument | None:
        """The open document of a file."""
        path, documents = self.path(file), self.workspace.text_documents.values()
        return next((document for document in documents if to_fs_path(document.uri) == path), None)

    def path(self, file: str) -> str:
        """The path of a file as the editor knows it."""
        return os.path.normpath(Path(self.root) / file)

    def inside(self, address: str) -> bool:
        """Whether an address is that of a file in the workspace."""
        path = to_fs_path(address)
        return path is not None and Path(os.path.realpath(path)).is_relative_to(Path.cwd())

    def saved(self, file: str) -> bool:
        """Whether the editor has the text that is on disk."""
        document = self.document(file)
        return document is None or document.source == text_of(file)

    def diagnostic(self, problem: Problem, related: bool) -> lsp.Diagnostic:
        """A problem; `related` says whether the editor shows a second place."""
        rule = problem.rule
        others = [problem.other] if related and problem.other is not None else []
        return lsp.Diagnostic(
            range=self.range(problem.place, problem.columns),
            message=problem.message,
            severity=SEVERITIES[problem.severity],
            code=rule.code if rule else None,
            code_description=lsp.CodeDescription(Path(rule.path).absolute().as_uri()) if rule else None,
            source=SOURCE,
            tags=[lsp.DiagnosticTag.Unnecessary] if problem.needless else None,
            related_information=[
                lsp.DiagnosticRelatedInformation(
                    location=lsp.Location(self.address(place.file), self.range(place, None)),
                    message=f"{word} here",
                )
                for place, word in others
            ]
            or None,
        )

    def range(self, place: Place, columns: tuple[int, int] | None) -> lsp.Range:
        """The columns of a line, else all of it but its indentation."""
        lines = source(place.file)
        text = lines[place.line - 1] if place.line <= len(lines) else ""
        start, end = columns or (max(place.column, 1 + len(text) - len(text.lstrip())), len(text) + 1)
        return lsp.Range(
            lsp.Position(place.line - 1, self.codec.client_num_units(text[: start - 1])),
            lsp.Position(place.line - 1, self.codec.client_num_units(text[: end - 1])),
        )

    def edit(self, edits: Iterable[EditInfo], versioned: bool) -> lsp.WorkspaceEdit:
        """Edits of whole lines; `versioned`: the editor takes them for a version of a document."""
        files: dict[str, list[lsp.TextEdit]] = {}
        for edit in edits:
            files.setdefault(edit.file, []).append(self.replacement(edit))
        if not versioned:
            return lsp.WorkspaceEdit(changes={self.address(file): changes for file, changes in files.items()})
        return lsp.WorkspaceEdit(
            document_changes=[
                lsp.TextDocumentEdit(
                    lsp.OptionalVersionedTextDocumentIdentifier(
                        uri=self.address(file),
                        version=document.version if (document := self.document(file)) else None,
                    ),
                    changes,
                )
                for file, changes in files.items()
            ]
        )

    def replacement(self, edit: EditInfo) -> lsp.TextEdit:
        """One edit: up to the beginning of the next line, or the end of a last one without a line end."""
        lines = text_of(edit.file).splitlines(keepends=True)
        last = lines[edit.last - 1]
        end = (
            lsp.Position(edit.last, 0)
            if last.endswith(("\n", "\r"))
            else lsp.Position(edit.last - 1, self.codec.client_num_units(last))
        )
        return lsp.TextEdit(lsp.Range(lsp.Position(edit.first - 1, 0), end), edit.text)


def text_of(file: str) -> str:
    """A Python file with the line ends that it has, "" where it cannot be read."""
    try:
        return read(file).text
    except DropoutLintError:
        return ""
