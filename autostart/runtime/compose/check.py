"""A compose project as `autostart check` looks at it: files only, no engine needed."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from autostart.errors import CommandNotFound, TimedOut
from autostart.runtime.compose.command import ComposeCommand
from autostart.runtime.compose.order import start_order
from autostart.runtime.compose.project import Project, PublishedPort, read_project

_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class ProjectReport:
    """What a compose project has, and in `compose_said` why nobody but we have read it (empty: compose has)."""

    project: Project
    compose_said: str = ""

    @property
    def containers(self) -> tuple[str, ...]:
        """Return the names that its containers have or will have."""
        return tuple(self.project.container_names(service)[0] for service in self.project.services)

    def has_container(self, name: str) -> bool:
        """Say whether `name` in `containers` means something here."""
        return self.project.service_of(name) is not None

    def published(self, host_port: int) -> tuple[PublishedPort, ...]:
        """Return what is published on `host_port`; more than one where only the addresses differ."""
        ports = (port for service in self.project.services.values() for port in service.ports)
        return tuple(port for port in ports if port.host_port == host_port)

    def is_published_to_the_world(self, host_port: int) -> bool:
        """Say whether `host_port` can be reached from elsewhere, past autostart and its authentication."""
        return any(not port.host_ip.startswith(_LOOPBACK) for port in self.published(host_port))


def inspect_project(compose_dir: Path, command: ComposeCommand | None = None) -> ProjectReport:
    """Read the project in `compose_dir`, and have compose read it too where it is installed; blocks.

    Raises ComposeDirMissing, ComposeFileInvalid.
    """
    project = read_project(compose_dir)
    try:
        project = asyncio.run((command or ComposeCommand()).resolve(project))
    except (CommandNotFound, TimedOut) as exc:
        said = str(exc)
    else:
        said = ""
    tuple(start_order(project, set(project.services)))  # raises for a circle
    return ProjectReport(project, said)
