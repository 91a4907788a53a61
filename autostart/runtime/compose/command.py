"""The compose command: `docker compose`, or else `docker-compose`.

Owns the running of it, for what only compose knows: creating containers, and reading a file with all its
includes. Knows neither the SDK nor what its callers want it for.
"""

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from autostart.errors import CommandFailed, CommandNotFound, ComposeFileInvalid, TimedOut
from autostart.runtime.compose.failures import recognise_engine_trouble
from autostart.runtime.compose.project import Project, build_project

CANDIDATES = (("docker", "compose"), ("docker-compose",))
_VERSION_LIMIT_S = 20.0
_CONFIG_LIMIT_S = 20.0
_OUTPUT_LINES = 40
_END_GRACE_S = 5.0


class Replacing(StrEnum):
    """Which existing containers `create` replaces; the values are compose's option for it, where there is one."""

    NONE = "--no-recreate"
    CHANGED = ""
    ALL = "--force-recreate"


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended; `output` is stdout and stderr together, the last lines of it."""

    exit_code: int
    stdout: str
    output: tuple[str, ...]


class ComposeCommand:
    """The compose command that is there, found at its first use and looked for again until one is.

    `address` is the engine it is to use, `candidates` what to try, in order.
    """

    def __init__(self, address: str | None = None, candidates: Sequence[Sequence[str]] = CANDIDATES) -> None:
        self._address = address
        self._candidates = tuple(tuple(candidate) for candidate in candidates)
        self._found: tuple[str, ...] | None = None
        self._creating: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By project: two at once may make its network twice, and neither can be used then (compose 2.40)."""

    async def find(self) -> tuple[str, ...]:
        """Return the words that compose is called with. Raises CommandNotFound."""
        if self._found is None:
            for candidate in self._candidates:
                with contextlib.suppress(CommandNotFound, TimedOut):
                    finished = await self._execute((*candidate, "version"), Path("/"), _VERSION_LIMIT_S)
                    if finished.exit_code == 0:
                        self._found = candidate
                        break
            else:
                failure = CommandNotFound(" ".join(self._candidates[0]), "no compose command is installed")
                failure.hint = "install docker-compose-plugin (docker compose) or docker-compose"
                raise failure
        return self._found

    async def create(
        self, project: Project, services: Sequence[str], *, replacing: Replacing, limit_s: float
    ) -> None:
        """Create (pull, build) the containers of `services` (none named: all) and their dependencies; start none.

        The project is named outright, so that compose and we can never mean different ones. Raises CommandFailed with what it said,
        TimedOut, ComposeFileInvalid, EngineUnreachable, EngineForbidden, CommandNotFound. Cancellation ends
        the command, and waits until it is gone.
        """
        arguments = (
            "--ansi",
            "never",
            "-p",
            project.name,
            "up",
            "--no-start",
            *filter(None, [replacing.value]),
            *services,
        )
        words = await self.find()
        async with self._creating[project.name]:
            finished = await self._execute((*words, *arguments), project.directory, limit_s)
        if finished.exit_code == 0:
            return
        trouble = recognise_engine_trouble(finished.output, self._address or "the engine")
        if trouble is not None:
            raise trouble
        await self._refuse_invalid(project)
        output = [line for line in finished.output if not line.endswith("while bringing up the project.")]
        raise CommandFailed(f"{' '.join(words)} up --no-start", finished.exit_code, output)

    async def resolve(self, project: Project) -> Project:
        """Return `project` as compose itself reads it, with includes and extensions. Raises as `create`."""
        words = await self.find()
        finished = await self._execute(
            (*words, "-p", project.name, "config"), project.directory, _CONFIG_LIMIT_S
        )
        if finished.exit_code != 0:
            raise ComposeFileInvalid(project.files[0], _last_line(finished.output))
        try:
            model: dict[str, Any] = yaml.safe_load(finished.stdout)
        except yaml.YAMLError as exc:
            raise ComposeFileInvalid(project.files[0], f"compose printed no model: {exc}") from exc
        resolved = build_project(project.directory, project.files, model | {"name": project.name})
        return replace(resolved, stamp=project.stamp, watched=project.watched, is_partial=False)

    async def _refuse_invalid(self, project: Project) -> None:
        words = await self.find()
        finished = await self._execute(
            (*words, "-p", project.name, "config", "-q"), project.directory, _CONFIG_LIMIT_S
        )
        if finished.exit_code != 0:
            raise ComposeFileInvalid(project.files[0], _last_line(finished.output))

    async def _execute(self, command: Sequence[str], directory: Path, limit_s: float) -> Finished:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=directory,
                env=self._environment(directory),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # its own group: a build's helpers end with it
            )
        except OSError as exc:
            raise CommandNotFound(command[0], exc.strerror or str(exc)) from exc
        try:
            async with asyncio.timeout(limit_s):
                stdout, stderr = await process.communicate()
        except TimeoutError as exc:
            raise TimedOut(" ".join(command[:4]), limit_s) from exc
        finally:
            if process.returncode is None:
                await _end(process)
        text = stdout.decode(errors="replace")
        lines = [
            line.rstrip() for line in (stderr.decode(errors="replace") + text).splitlines() if line.strip()
        ]
        return Finished(process.returncode or 0, text, tuple(lines[-_OUTPUT_LINES:]))

    def _environment(self, directory: Path) -> Mapping[str, str]:
        environment = dict(os.environ) | {"PWD": str(directory)}
        if self._address is not None:
            environment["DOCKER_HOST"] = self._address
        return environment


def _last_line(lines: Sequence[str]) -> str:
    return lines[-1] if lines else "compose refuses it and says nothing"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the command's whole group and wait for it: TERM, then KILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            async with asyncio.timeout(_END_GRACE_S):
                await asyncio.shield(process.wait())
                return
        except TimeoutError:
            continue
