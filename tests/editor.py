"""An editor for tests: it starts `dropout-lint serve` and speaks the Language Server Protocol with it."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from cli_project import ROOT

SECONDS = 120
ABLE = {
    "workspace": {"workspaceEdit": {"documentChanges": True}},
    "textDocument": {
        "codeAction": {"dataSupport": True, "resolveSupport": {"properties": ["edit"]}},
        "publishDiagnostics": {"relatedInformation": True},
    },
}
Message = dict[str, Any]


class Editor:
    """One session over a folder, initialized; ended with the block."""

    def __init__(self, folder: Path, able: Message | None = None, *options: str) -> None:
        self.folder = folder
        self.able = ABLE if able is None else able
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from dropout_lint.cli import main; main()", "serve", *options],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        self.arrived: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.aside: list[Message] = []
        self.versions: dict[str, int] = {}
        self.number = 0
        self.published: dict[str, list[Message]] = {}
        threading.Thread(target=self.receive, daemon=True).start()

    def __enter__(self) -> Editor:
        asked = {"processId": None, "rootUri": self.folder.as_uri(), "capabilities": self.able}
        self.server = self.ask("initialize", asked)
        self.tell("initialized", {})
        return self

    def __exit__(self, *problem: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def leave(self) -> int:
        """End the session as an editor does, and give the exit status."""
        self.ask("shutdown", None)
        self.tell("exit", None)
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(SECONDS)

    def address(self, file: str) -> str:
        return (self.folder / file).as_uri()

    def receive(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while header := stream.readline():
            length = int(header.split(b":")[1])
            while stream.readline().strip():
                pass
            self.arrived.put(json.loads(stream.read(length)))

    def send(self, message: Message) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def tell(self, method: str, params: Message | None) -> None:
        self.send({"method": method, "params": params})

    def ask(self, method: str, params: Message | None) -> Any:
        """The result of a request."""
        self.number += 1
        number = self.number
        self.send({"id": number, "method": method, "params": params})
        answer = self.wait(lambda message: message.get("id") == number and "method" not in message)
        assert "error" not in answer, answer
        return answer["result"]

    def wait(self, wanted: Any) -> Message:
        """The next message that is `wanted`; those before it are kept for later."""
        for message in self.aside:
            if wanted(message):
                self.aside.remove(message)
                return message
        while True:
            message = self.arrived.get(timeout=SECONDS)
            if wanted(message):
                return message
            self.aside.append(message)

    def linted(self) -> dict[str, list[Message]]:
        """The diagnostics by file name, once the server says that all targets are linted."""
        self.wait(lambda message: message.get("method") == "window/logMessage")
        return self.diagnostics()

    def shown(self, file: str) -> list[Message]:
        """The diagnostics of a file when they are published next."""
        message = self.wait(
            lambda message: published(message) and message["params"]["uri"] == self.address(file)
        )
        self.aside.append(message)
        return self.diagnostics()[file]

    def diagnostics(self) -> dict[str, list[Message]]:
        """What was published last for each file, of what has arrived."""
        for message in [item for item in self.aside if published(item)]:
            self.aside.remove(message)
            name = message["params"]["uri"].removeprefix(f"{self.folder.as_uri()}/")
            self.published[name] = message["params"]["diagnostics"]
        return {name: found for name, found in self.published.items() if found}

    def open(self, file: str) -> None:
        self.versions[file] = 1
        text = (self.folder / file).read_bytes().decode()
        item = {"uri": self.address(file), "languageId": "python", "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": item})

    def type(self, file: str, text: str) -> None:
        """Put `text` in the place of what the editor shows, without saving it."""
        self.versions[file] += 1
        document = {"uri": self.address(file), "version": self.versions[file]}
        self.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})

    def save(self, file: str, text: str | None = None) -> None:
        """Write the file, with `text` where it is given, and say so."""
        if text is not None:
            if file in self.versions:
                self.type(file, text)
            (self.folder / file).write_bytes(text.encode())
        self.tell("textDocument/didSave", {"textDocument": {"uri": self.address(file)}})


def published(message: Message) -> bool:
    """Whether a message brings diagnostics."""
    return message.get("method") == "textDocument/publishDiagnostics"
