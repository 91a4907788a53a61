"""A project as it is now: its files and its containers, looked at together."""

from dataclasses import dataclass
from pathlib import Path

from autostart.errors import RuntimeFailure
from autostart.runtime.compose.command import ComposeCommand
from autostart.runtime.compose.containers import Container, find_containers
from autostart.runtime.compose.engine import Engine
from autostart.runtime.compose.project import Project, guess_project, read_project, stamp_files
from autostart.runtime.compose.scope import Scope
from autostart.threads import run_in_thread

_LOOK_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sight:
    """A project and its containers at one moment; `needed` is None where one that must run does not exist."""

    project: Project
    containers: list[Container]
    needed: list[Container] | None

    @property
    def runs(self) -> bool:
        """Say whether everything that must run does."""
        return self.needed is not None and all(container.is_running for container in self.needed)

    def of_service(self, service: str) -> list[Container]:
        """Return the containers of one service."""
        return [container for container in self.containers if container.service == service]


class ProjectView:
    """Looks at the project in `directory`; files are read, and containers searched for, only when needed.

    `project` is what was read last, None before the first look; `needed` what was seen last to have to run.
    """

    def __init__(self, engine: Engine, command: ComposeCommand, directory: Path, scope: Scope) -> None:
        self.project: Project | None = None
        self.needed: list[Container] = []
        self._engine = engine
        self._command = command
        self._directory = directory
        self._scope = scope
        self._known: tuple[str, ...] = ()

    async def look(self) -> Sight:
        """Look at files and containers.

        Raises ComposeDirMissing, ComposeFileInvalid, EngineUnreachable, EngineForbidden, TimedOut.
        """
        return await self.look_at(await self._load())

    async def look_at_all(self) -> Sight:
        """Look at every container that belongs to the project, even where its files cannot be read."""
        try:
            project = await self._load()
        except RuntimeFailure:
            project = self.project or guess_project(self._directory)
        self._known = ()  # nothing may be overlooked
        return await self.look_at(project)

    async def look_at(self, project: Project) -> Sight:
        """Look at the containers alone."""
        containers = await self._engine.call(
            f"looking at the containers of {self._directory}",
            lambda client: find_containers(client, project, self._scope.names, self._known),
            limit_s=_LOOK_LIMIT_S,
        )
        self._known = tuple(container.id for container in containers)
        needed = self._scope.needed(project, containers)
        self.needed = needed or []
        return Sight(project, containers, needed)

    async def _load(self) -> Project:
        old = self.project

        def read() -> Project:
            if old is not None and stamp_files(old.watched) == old.stamp:
                return old
            return read_project(self._directory)

        project = await run_in_thread(f"reading {self._directory}", read, limit_s=_LOOK_LIMIT_S)
        if project.is_partial:
            project = await self._command.resolve(project)
        self.project = project
        return project
