"""Single questions to the engine about one container: how it died, what it printed, whether it is well.

Every function blocks and runs in `Engine.call`'s thread; each is given the client.
"""

from collections.abc import Sequence
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.utils import version_gte

from autostart.errors import BusyUnknown, Exited, OutOfMemory, RuntimeFailure, Unhealthy
from autostart.runtime.base import HealthResult
from autostart.runtime.compose.containers import parse_time

_DEFAULT_CHECK_LIMIT_S = 30.0
_MAX_OUTPUT_CHARS = 1000
_ONE_SHOT_SINCE = "1.41"
_EARLY_LINES_S = 0.3
"""The engine notes a run's beginning after the fact, and a quick failure has printed its reason by then: on a busy
machine more than this long before. Only used where the end of the run before is not known."""


def was_out_of_memory(client: docker.APIClient, container_id: str) -> bool:
    """Say whether the kernel ended the container's last run for want of memory."""
    return bool(client.inspect_container(container_id)["State"].get("OOMKilled"))


def death_of(
    client: docker.APIClient, container_id: str, name: str, log_lines: int, ended_before_s: float | None
) -> RuntimeFailure | None:
    """Return how the container ended, with the last lines of that run (see `log_tail`); None where it runs."""
    state = client.inspect_container(container_id)["State"]
    if state.get("Running") and not state.get("Restarting"):
        return None
    tail = log_tail(client, container_id, log_lines, ended_before_s)
    if state.get("OOMKilled"):
        return OutOfMemory(name, tail)
    return Exited(name, state.get("ExitCode"), tail)


def log_tail(
    client: docker.APIClient, container_id: str, lines: int, ended_before_s: float | None
) -> list[str]:
    """Return the last `lines` lines that the container's present or latest run printed.

    `ended_before_s` is when it had ended (0: never) before it was last started here; None where it was not.
    """
    try:
        state = client.inspect_container(container_id)["State"]
        raw = client.logs(
            container_id, stdout=True, stderr=True, tail=lines, since=_log_begin(state, ended_before_s)
        )
    except NotFound:
        return []
    except APIError as exc:
        if "does not support reading" in str(exc.explanation):
            return []
        raise
    return [line.rstrip() for line in raw.decode(errors="replace").splitlines()]


def _log_begin(state: dict[str, Any], ended_before_s: float | None) -> float | None:
    """Return since when lines are of the present or latest run, as epoch seconds; None where none has begun."""
    begun_s = parse_time(state.get("StartedAt", ""))
    if begun_s is None:
        return None
    ended_s = parse_time(state.get("FinishedAt", "")) or 0.0
    if state.get("Running") and not state.get("Restarting"):
        return ended_s or None
    # Which of the two is later says nothing: a quick run's end is often noted as before its beginning (20.10).
    if ended_before_s is not None and ended_before_s < ended_s:
        return ended_before_s or None
    return min(begun_s, ended_s) - _EARLY_LINES_S


def cpu_seconds(client: docker.APIClient, container_id: str, name: str) -> float:
    """Return the CPU seconds that a running container has used so far. Raises BusyUnknown where none are told."""
    # Without one-shot the engine looks twice, a second apart.
    one_shot = True if version_gte(client.api_version, _ONE_SHOT_SINCE) else None
    return parse_cpu_seconds(client.stats(container_id, stream=False, one_shot=one_shot), name)


def parse_cpu_seconds(stats: Any, name: str) -> float:
    """Return the CPU seconds that the engine's statistics tell.

    `total_usage`, in nanoseconds, is there with cgroup v1 and v2; `percpu_usage` only with v1. What runs has used some:
    0 is what is told where the engine cannot see it (no cpu controller for a rootless engine; it ended just now).
    """
    try:
        nanoseconds = stats["cpu_stats"]["cpu_usage"]["total_usage"]
    except (LookupError, TypeError):
        nanoseconds = None
    if isinstance(nanoseconds, bool) or not isinstance(nanoseconds, int | float) or nanoseconds <= 0:
        raise BusyUnknown(
            f"the engine does not tell the CPU time of the container {name}",
            hint=f"see what `docker stats {name}` shows; busyPath needs no statistics",
        )
    return nanoseconds / 1e9


def has_image(client: docker.APIClient, image: str) -> bool:
    """Say whether the image is on this machine."""
    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]
    except NotFound:
        return False
    return True


class HealthCheck:
    """The health check that a container was made with. `limit_s` is how long one run may take."""

    def __init__(self, container_id: str, command: Sequence[str], limit_s: float) -> None:
        self.container_id = container_id
        self.limit_s = limit_s
        self._command = list(command)

    @classmethod
    def of(cls, client: docker.APIClient, container_id: str) -> "HealthCheck | None":
        """Return the container's health check, its own or its image's; None where it has none."""
        config: dict[str, Any] = client.inspect_container(container_id)["Config"]
        check = config.get("Healthcheck") or {}
        kind, *words = check.get("Test") or ["NONE"]
        if kind == "NONE" or not words:
            return None
        command = [*(config.get("Shell") or ["/bin/sh", "-c"]), words[0]] if kind == "CMD-SHELL" else words
        return cls(container_id, command, check.get("Timeout", 0) / 1e9 or _DEFAULT_CHECK_LIMIT_S)

    def run(self, client: docker.APIClient) -> HealthResult:
        """Run it now, by exec, as the engine itself would. The engine's own idea of health is not changed."""
        execution = client.exec_create(self.container_id, self._command)["Id"]
        output: bytes = client.exec_start(execution)
        exit_code = client.exec_inspect(execution)["ExitCode"]
        text = output[: 4 * _MAX_OUTPUT_CHARS].decode(errors="replace").strip()
        return HealthResult(exit_code == 0, text[:_MAX_OUTPUT_CHARS])


def engine_finds_unhealthy(client: docker.APIClient, container_id: str, name: str) -> Unhealthy | None:
    """Return the failure where the engine's own checks have failed as often as they may; else None."""
    health = client.inspect_container(container_id)["State"].get("Health") or {}
    if health.get("Status") != "unhealthy":
        return None
    log = health.get("Log") or [{}]
    return Unhealthy(name, str(log[-1].get("Output", "")).strip()[:_MAX_OUTPUT_CHARS])
