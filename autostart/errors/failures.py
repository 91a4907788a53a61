"""What a runtime tells when it cannot do what it was asked. Imports nothing of ours but the root of the tree."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from autostart.errors.root import AutostartError


class FailureCause(StrEnum):
    """Why a start or stop failed; the values are metric labels and part of error replies."""

    COMPOSE_DIR_MISSING = "compose_dir_missing"
    COMPOSE_FILE_INVALID = "compose_file_invalid"
    CONTAINER_UNKNOWN = "container_unknown"
    IMAGE_MISSING = "image_missing"
    PORT_TAKEN = "port_taken"
    ENGINE_UNREACHABLE = "engine_unreachable"
    ENGINE_FORBIDDEN = "engine_forbidden"
    COMMAND_NOT_FOUND = "command_not_found"
    COMMAND_FAILED = "command_failed"
    EXITED = "exited"
    OUT_OF_MEMORY = "out_of_memory"
    UNHEALTHY = "unhealthy"
    TIMEOUT = "timeout"
    STOPPED_BY_HAND = "stopped_by_hand"
    STOP_FAILED = "stop_failed"
    BUSY_UNKNOWN = "busy_unknown"
    INTERNAL = "internal"


class RuntimeFailure(AutostartError):
    """A runtime could not start, stop or look at what it runs.

    `cause` is the class of failure, `log_tail` the last lines of output where there are any (oldest
    first), `hint` what a person may do about it.
    """

    cause: FailureCause = FailureCause.INTERNAL
    hint: str = ""

    def __init__(self, message: str, *, log_tail: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message)
        self.log_tail = tuple(log_tail)
        if hint is not None:
            self.hint = hint


class ComposeDirMissing(RuntimeFailure):
    """The compose directory is not there, or holds no compose file."""

    cause = FailureCause.COMPOSE_DIR_MISSING

    def __init__(self, directory: Path, detail: str = "there is no such directory") -> None:
        self.directory = directory
        super().__init__(
            f"compose directory {directory}: {detail}", hint="correct composeDir in the configuration"
        )


class ComposeFileInvalid(RuntimeFailure):
    """The compose file does not parse, or compose refuses it."""

    cause = FailureCause.COMPOSE_FILE_INVALID

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(
            f"compose file {path} is not usable: {detail}", hint="run `docker compose config` there"
        )


class ContainerUnknown(RuntimeFailure):
    """A name in `containers` is not in the compose file."""

    cause = FailureCause.CONTAINER_UNKNOWN

    def __init__(self, container: str, known: Sequence[str]) -> None:
        self.container = container
        self.known = tuple(known)
        there = ", ".join(self.known) or "none"
        super().__init__(
            f"container {container!r} is not in the compose file (there: {there})",
            hint="correct containers in the configuration, or container_name in the compose file",
        )


class ImageMissing(RuntimeFailure):
    """The image is neither on this machine nor to be had."""

    cause = FailureCause.IMAGE_MISSING

    def __init__(self, image: str, detail: str = "") -> None:
        self.image = image
        super().__init__(
            f"image {image!r} is missing" + (f": {detail}" if detail else ""),
            hint="pull it or build it with `docker compose build`",
        )


class PortTaken(RuntimeFailure):
    """The port that the service needs is in use by something else."""

    cause = FailureCause.PORT_TAKEN

    def __init__(self, port: int, detail: str = "") -> None:
        self.port = port
        super().__init__(
            f"port {port} is taken" + (f": {detail}" if detail else ""),
            hint=f"see who has it with `ss -ltnp sport = :{port}`",
        )


class EngineUnreachable(RuntimeFailure):
    """No Docker engine answers at `address`."""

    cause = FailureCause.ENGINE_UNREACHABLE

    def __init__(self, address: str, detail: str = "") -> None:
        self.address = address
        super().__init__(
            f"no Docker engine answers at {address}" + (f": {detail}" if detail else ""),
            hint="is the engine running? see `systemctl status docker`",
        )


class EngineForbidden(RuntimeFailure):
    """The Docker socket is there, but we may not open it."""

    cause = FailureCause.ENGINE_FORBIDDEN

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"no right to use the Docker engine at {address}",
            hint="add the user that runs autostart to the group that owns the socket (usually docker)",
        )


class CommandNotFound(RuntimeFailure):
    """The program to run is not there or not executable."""

    cause = FailureCause.COMMAND_NOT_FOUND

    def __init__(self, command: str, detail: str = "no such program") -> None:
        self.command = command
        super().__init__(f"cannot run {command!r}: {detail}", hint="correct runtime.command or runtime.cwd")


class CommandFailed(RuntimeFailure):
    """A helper command (compose) ended with an error that says nothing more exact."""

    cause = FailureCause.COMMAND_FAILED

    def __init__(self, command: str, exit_code: int, output: Sequence[str]) -> None:
        self.command = command
        self.exit_code = exit_code
        last = output[-1] if output else "it printed nothing"
        super().__init__(f"`{command}` ended with exit code {exit_code}: {last}", log_tail=output)


class Exited(RuntimeFailure):
    """What was started ended before it was ready, or `ready_s` seconds after.

    `exit_code` is negative for a signal (−9: SIGKILL).
    """

    cause = FailureCause.EXITED

    def __init__(
        self,
        what: str,
        exit_code: int | None,
        log_tail: Sequence[str] = (),
        *,
        ready_s: float | None = None,
    ) -> None:
        self.exit_code = exit_code
        self.ready_s = ready_s
        how = "ended" if exit_code is None else f"ended with exit code {exit_code}"
        when = "before it was ready" if ready_s is None else f"{ready_s:.1f} s after it was ready"
        super().__init__(f"{what} {how} {when}", log_tail=log_tail)


class OutOfMemory(RuntimeFailure):
    """The kernel killed what was started because its memory limit, or the machine's memory, was used up."""

    cause = FailureCause.OUT_OF_MEMORY

    def __init__(self, what: str, log_tail: Sequence[str] = ()) -> None:
        super().__init__(
            f"{what} was killed: out of memory", log_tail=log_tail, hint="raise its memory limit"
        )


class Unhealthy(RuntimeFailure):
    """The container's own health check says no. `output` is what the check printed last."""

    cause = FailureCause.UNHEALTHY

    def __init__(self, what: str, output: str, log_tail: Sequence[str] = ()) -> None:
        self.output = output
        super().__init__(
            f"the health check of {what} fails: {output or 'it printed nothing'}", log_tail=log_tail
        )


class TimedOut(RuntimeFailure):
    """An operation outlasted its limit. `option` names the setting that holds the limit, where one does."""

    cause = FailureCause.TIMEOUT

    def __init__(
        self,
        operation: str,
        limit_s: float,
        *,
        detail: str = "",
        option: str = "",
        log_tail: Sequence[str] = (),
    ) -> None:
        self.operation = operation
        self.limit_s = limit_s
        super().__init__(
            f"{operation} took longer than {limit_s:g} s" + (f": {detail}" if detail else ""),
            log_tail=log_tail,
            hint=f"raise {option} if it is only slow" if option else "",
        )


class StoppedByHand(RuntimeFailure):
    """Somebody stopped the service while it was starting."""

    cause = FailureCause.STOPPED_BY_HAND

    def __init__(self) -> None:
        super().__init__("the service was stopped by hand while it was starting")


class StopFailed(RuntimeFailure):
    """A stop did not end what was to be stopped."""

    cause = FailureCause.STOP_FAILED


class BusyUnknown(RuntimeFailure):
    """It cannot be told whether a service works on something: its busy check brings no usable answer."""

    cause = FailureCause.BUSY_UNKNOWN


class InternalFailure(RuntimeFailure):
    """A mistake in autostart itself, told apart so that it is never mistaken for the service's."""
