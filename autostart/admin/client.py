"""Ask the local API. Standard library only: the command line loads this on every call, and aiohttp takes 0.3 s."""

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

Json = dict[str, Any]

ANSWER_LIMIT_S = 10.0
"""How long an answer may take that waits for nothing."""
WORK_LIMIT_S = 3600.0
"""How long a start, stop or reload may take; autostart's own limits end them much earlier."""


class NotRunning(Exception):
    """Nobody answers on the admin socket."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"autostart is not running: {path}: {reason}")


class NotAllowed(Exception):
    """The admin socket is there, but we may not open it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"no right to use {path}: run this as the user that runs autostart, or as root")


class Refused(Exception):
    """autostart answered that it cannot do this; `code` is the error's code, `body` the whole answer."""

    def __init__(self, status: int, body: Json) -> None:
        self.status = status
        self.body = body
        error = body["error"]
        self.code = error.get("code", "")
        super().__init__(error.get("message", f"status {status}"))


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, limit_s: float) -> None:
        super().__init__("autostart", timeout=limit_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def service_path(service: str, action: str = "") -> str:
    """Return the API's path for a service, named as people name it."""
    path = f"/v1/services/{quote(service, safe='', errors='surrogateescape')}"
    return f"{path}/{action}" if action else path


def ask(
    socket_path: Path, method: str, path: str, body: Json | None = None, limit_s: float = ANSWER_LIMIT_S
) -> Json:
    """Return what the API answers. Raises NotRunning, NotAllowed, Refused."""
    connection = _UnixConnection(socket_path, limit_s)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json"} if sent else {})
        response = connection.getresponse()
        text = response.read()
    except PermissionError as exc:
        raise NotAllowed(socket_path) from exc
    except FileNotFoundError as exc:
        raise NotRunning(socket_path, "there is no such socket") from exc
    except ConnectionRefusedError as exc:
        raise NotRunning(socket_path, "nobody listens on it") from exc
    except TimeoutError as exc:
        raise NotRunning(socket_path, f"no answer within {limit_s:g} s") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise NotRunning(socket_path, f"the connection broke ({exc})") from exc
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    refused = response.status >= 400
    if not isinstance(answer, dict) or (refused and not isinstance(answer.get("error"), dict)):
        raise NotRunning(socket_path, "what answers there is not autostart")
    if refused:
        raise Refused(response.status, answer)
    return answer
