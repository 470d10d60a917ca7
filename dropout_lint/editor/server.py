"""The language server: what an editor asks and is told. Needs pygls; imports neither torch nor a model."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import to_fs_path

from dropout_lint import __version__
from dropout_lint.config.load import FILE, nearest_project
from dropout_lint.editor.problems import Problem, fixable, problems_of, wrong_settings
from dropout_lint.editor.session import Project, Session
from dropout_lint.editor.translate import SOURCE, Translator, text_of
from dropout_lint.errors import DropoutLintError
from dropout_lint.report.schema import EditInfo, FindingInfo
from dropout_lint.report.words import counts
from dropout_lint.suppress.add_ignores import is_ours
from dropout_lint.suppress.ignores import places, with_ignore
from dropout_lint.words import count

CHANGED = "the project was linted anew since: ask for the code actions again"
UNSAVED = "save the files first: the fix was worked out for what is on disk"
NO_TARGET = 'no target is configured: put targets = ["package.module:build"] under [tool.dropout-lint]'


class Server:
    """One editor's session.

    Args:
        config: the settings file, None for the `pyproject.toml` nearest to the editor's folder.
    """

    def __init__(self, config: str | None) -> None:
        self.config = config
        self.session: Session | None = None
        self.language = LanguageServer(SOURCE, __version__)
        self.told: dict[str, list[tuple[Problem, lsp.Diagnostic]]] = {}
        actions = lsp.CodeActionOptions([lsp.CodeActionKind.QuickFix], resolve_provider=True)
        feature = self.language.feature
        # of a method the library could not note what it is for
        feature(lsp.INITIALIZED)(partial(self.begin))
        feature(lsp.TEXT_DOCUMENT_DID_SAVE)(partial(self.saved))
        feature(lsp.TEXT_DOCUMENT_CODE_ACTION, actions)(partial(self.actions))
        feature(lsp.CODE_ACTION_RESOLVE)(partial(self.resolved))
        feature(lsp.SHUTDOWN)(partial(self.end))

    def run(self, stdin: BinaryIO, stdout: BinaryIO) -> None:
        """Talk to the editor until it is gone."""
        try:
            self.language.start_io(stdin, stdout)
        finally:
            self.end(None)

    async def begin(self, _: lsp.InitializedParams) -> None:
        """The editor is ready: lint everything once."""
        workspace, loop = self.language.workspace, asyncio.get_running_loop()
        folders = [workspace.root_path, *(to_fs_path(uri) for uri in workspace.folders)]
        root = next((path for path in folders if path), str(Path.cwd()))
        os.chdir(root)
        self.translator = Translator(root, workspace)
        self.session = Session(
            self.config,
            show=lambda project: loop.call_soon_threadsafe(self.show, project),
            refuse=lambda problem: loop.call_soon_threadsafe(self.refuse, problem),
        )
        self.session.lint()

    def saved(self, params: lsp.DidSaveTextDocumentParams) -> None:
        """A file was saved: lint what depends on it."""
        if self.session is not None and self.translator.inside(params.text_document.uri):
            self.session.lint()

    def end(self, _: object) -> None:
        """Nobody waits for anything any more."""
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def show(self, project: Project) -> None:
        """Publish what was found so far."""
        self.publish(problems_of(project))
        if not project.left:
            report = project.run.report
            text = (
                f"linted {count(len(report.targets), 'model')}: {counts(report.summary) or 'nothing found'}"
            )
            text = text if project.loaded.settings.targets else NO_TARGET  # a project may have no use for it
            self.language.window_log_message(lsp.LogMessageParams(lsp.MessageType.Info, text))

    def refuse(self, problem: DropoutLintError) -> None:
        """Publish what is wrong with the settings."""
        file = self.config or str(nearest_project(Path.cwd()) / FILE)
        self.publish([wrong_settings(file, problem)])

    def publish(self, problems: Sequence[Problem]) -> None:
        """Tell the editor of all problems, a file at a time, and of each file that has none any more."""
        shown = self.language.client_capabilities.text_document
        published = shown.publish_diagnostics if shown else None
        related = bool(published and published.related_information)
        before, self.told = self.told, {}
        for problem in problems:
            told = (problem, self.translator.diagnostic(problem, related))
            self.told.setdefault(self.translator.address(problem.place.file), []).append(told)
        for address in [*(before.keys() - self.told), *self.told]:
            diagnostics = [diagnostic for _, diagnostic in self.told.get(address, ())]
            self.language.text_document_publish_diagnostics(
                lsp.PublishDiagnosticsParams(address, diagnostics)
            )

    async def actions(self, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
        """What can be done about the problems on the lines that are asked about."""
        kinds = params.context.only
        if kinds is not None and not {"", lsp.CodeActionKind.QuickFix} & set(kinds):
            return []
        found = []
        for problem, diagnostic in self.told.get(params.text_document.uri, ()):
            start, end = diagnostic.range.start.line, diagnostic.range.end.line
            if start <= params.range.end.line and params.range.start.line <= end:
                found += [*await self.fixes(problem, diagnostic), *self.ignores(problem, diagnostic)]
        return found

    async def fixes(self, problem: Problem, diagnostic: lsp.Diagnostic) -> list[lsp.CodeAction]:
        """One action for each different fix; where the editor can, its edit is made when it is chosen."""
        session = self.session
        if session is None or session.project is None or not self.translator.saved(problem.place.file):
            return []
        actions: dict[str, lsp.CodeAction] = {}
        for target, finding in fixable(problem, session.project):
            actions.setdefault(
                finding.fix.title,
                lsp.CodeAction(
                    title=finding.fix.title,
                    kind=lsp.CodeActionKind.QuickFix,
                    diagnostics=[diagnostic],
                    is_preferred=True,
                    data={"target": target, "number": session.project.number, "about": about(finding)},
                ),
            )
        if self.resolves():
            return list(actions.values())
        resolved = [await self.resolved(action) for action in actions.values()]
        return [action for action in resolved if action.edit is not None]

    def resolves(self) -> bool:
        """Whether the editor asks for an action's edit when it is chosen."""
        document = self.language.client_capabilities.text_document
        support = document.code_action.resolve_support if document and document.code_action else None
        return support is not None and "edit" in support.properties

    async def resolved(self, action: lsp.CodeAction) -> lsp.CodeAction:
        """The action with its edit, proven as `dropout-lint fix` proves it; without where there is none."""
        data = action.data
        if self.session is None or not isinstance(data, dict):
            return action
        info = await asyncio.wrap_future(self.session.fix(data["target"], data["number"]))
        if info is None:
            self.say(CHANGED)
            return action
        finding = next((item for item in info.findings if about(item) == data["about"]), None)
        if finding is None or not finding.fix.edits:
            reason = info.notes[-1] if info.notes else "the fix could not be proven"
            self.say(f"{action.title}: not in source; {finding.fix.title if finding else reason}")
        elif not all(self.translator.saved(edit.file) for edit in finding.fix.edits):
            self.say(UNSAVED)
        else:
            action.edit = self.edit(finding.fix.edits)
        return action

    def ignores(self, problem: Problem, diagnostic: lsp.Diagnostic) -> list[lsp.CodeAction]:
        """The action that writes an ignore comment, where one can stand."""
        if problem.item is None:
            return []
        finding = problem.item.group.first
        place = next((place for place in places(finding) if is_ours(place.file)), None)
        if place is None or not self.translator.saved(place.file):
            return []
        before = text_of(place.file)
        after = with_ignore(before, place.line, [finding.code])
        if after is None or after == before:
            return []
        line = after.splitlines(keepends=True)[place.line - 1]
        return [
            lsp.CodeAction(
                title=f"ignore {finding.code} on this line",
                kind=lsp.CodeActionKind.QuickFix,
                diagnostics=[diagnostic],
                edit=self.edit([EditInfo(file=place.file, first=place.line, last=place.line, text=line)]),
            )
        ]

    def edit(self, edits: Sequence[EditInfo]) -> lsp.WorkspaceEdit:
        """Edits in the form that the editor takes."""
        workspace = self.language.client_capabilities.workspace
        takes = workspace.workspace_edit if workspace else None
        return self.translator.edit(edits, versioned=bool(takes and takes.document_changes))

    def say(self, text: str) -> None:
        """Something that the editor's user should see."""
        self.language.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Warning, text))


def about(finding: FindingInfo) -> list[str]:
    """By what a finding is found again after its fix was worked out."""
    return [finding.code, finding.dropout.name if finding.dropout else ""]
