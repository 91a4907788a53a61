"""What the Docker engine and compose say when they cannot, as exceptions of `autostart.errors`."""

import re
from collections.abc import Iterator, Sequence

from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from autostart.errors import (
    CommandNotFound,
    EngineForbidden,
    EngineUnreachable,
    FailureCause,
    ImageMissing,
    PortTaken,
    RuntimeFailure,
)

ENGINE_TROUBLE = (DockerException, RequestException, OSError, ValueError)
"""Whatever the SDK lets through when a call goes wrong (ValueError: an answer that is not JSON)."""

_PORT_TAKEN = re.compile(
    r":(\d+)\b[^:]*(?:: bind: address already in use| failed: port is already allocated)"
)
_PORT_TAKEN_HINT = re.compile(r"(?:port is already allocated|address already in use)")
_ANY_PORT = re.compile(r":(\d+)(?:/tcp|/udp)?\b")
_NO_IMAGE = re.compile(r"[Nn]o such image:? (?P<image>\S+)")
_NO_PROGRAM = re.compile(
    r'exec: "(?P<program>[^"]*)": (?P<detail>executable file not found|permission denied|.*no such file)'
)


class EngineRefused(RuntimeFailure):
    """The engine answered with an error that says nothing more exact; `status` is its HTTP status."""

    cause = FailureCause.COMMAND_FAILED

    def __init__(self, operation: str, status: int, detail: str) -> None:
        self.operation = operation
        self.status = status
        super().__init__(f"{operation}: the Docker engine refused: {detail}")


def translate(exc: Exception, operation: str, address: str) -> RuntimeFailure:
    """Return the failure that says what `exc`, raised by the SDK during `operation`, means."""
    if isinstance(exc, RuntimeFailure):
        return exc
    if isinstance(exc, APIError) and exc.response is not None:
        detail = str(exc.explanation or exc).strip()
        return recognise(detail) or EngineRefused(operation, int(exc.response.status_code), detail)
    for link in _chain(exc):
        if isinstance(link, PermissionError):
            return EngineForbidden(address)
        if isinstance(link, OSError) and link.strerror:
            return EngineUnreachable(address, link.strerror)
    return EngineUnreachable(address, str(exc))


def recognise(text: str) -> RuntimeFailure | None:
    """Return the failure that the words of the engine or of compose name, None where they name none."""
    if _PORT_TAKEN_HINT.search(text) and (match := _PORT_TAKEN.search(text) or _ANY_PORT.search(text)):
        return PortTaken(int(match[1]))
    if match := _NO_IMAGE.search(text):
        return ImageMissing(match["image"].rstrip(":,"))
    if match := _NO_PROGRAM.search(text):
        failure = CommandNotFound(match["program"], match["detail"].rpartition(": ")[2])
        failure.hint = "correct command or entrypoint in the compose file, or the image"
        return failure
    return None


def recognise_engine_trouble(lines: Sequence[str], address: str) -> RuntimeFailure | None:
    """Return the failure where compose's output says that it did not reach the engine."""
    text = "\n".join(lines)
    if "permission denied" in text.lower() and "socket" in text.lower():
        return EngineForbidden(address)
    if "Cannot connect to the Docker daemon" in text or "Couldn't connect to Docker daemon" in text:
        return EngineUnreachable(address)
    return None


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield `exc` and all that it was made of: causes, contexts and exceptions passed as arguments."""
    unseen: list[BaseException] = [exc]
    seen: set[int] = set()
    while unseen:
        link = unseen.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        unseen += [
            part for part in (link.__cause__, link.__context__, *link.args) if isinstance(part, BaseException)
        ]
