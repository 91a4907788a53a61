"""A Hugging Face hub on loopback: what its client asks for to download models, from directories of this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

_COMMIT = "a" * 40


class FakeHub:
    """Serves repositories, each a directory. Leave the context to end it."""

    def __init__(self, **repositories: Path) -> None:
        self.asked: list[str] = []
        """Paths that were asked for, in order."""
        self.gate = threading.Event()
        """Closed, no file is handed out."""
        self.gate.set()
        self._repositories = repositories
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            do_HEAD = do_GET  # noqa: N815 -- the library's name

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = "http://{}:{}".format(*self._server.server_address)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        self.asked.append(path)
        for name, directory in self._repositories.items():
            repository = f"Systran/faster-whisper-{name}"
            if path == f"/api/models/{repository}/revision/main":
                return self._send(
                    request, json.dumps({"id": repository, "sha": _COMMIT, "siblings": []}).encode()
                )
            if path == f"/api/models/{repository}/tree/{_COMMIT}":
                return self._send(
                    request, json.dumps([_entry(file) for file in directory.iterdir()]).encode()
                )
            prefix = f"/{repository}/resolve/{_COMMIT}/"
            if path.startswith(prefix):
                file = directory / path.removeprefix(prefix)
                self.gate.wait()
                return self._send(request, file.read_bytes(), {"etag": f'"{_etag(file)}"'})
        request.send_response(404)
        request.send_header("X-Error-Code", "RepoNotFound")
        request.send_header("content-length", "0")
        request.end_headers()
        return None

    def _send(
        self, request: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        request.send_response(200)
        for name, value in {
            "x-repo-commit": _COMMIT,
            "content-length": str(len(body)),
            **(headers or {}),
        }.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


def _entry(file: Path) -> dict[str, object]:
    return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _etag(file)}


def _etag(file: Path) -> str:
    return hashlib.sha1(f"{file.name} {file.stat().st_size}".encode(), usedforsecurity=False).hexdigest()
