"""When and for what the compose command is called: containers that are missing, edited or pruned."""

from collections.abc import Iterable, Sequence

from autostart.errors import CommandFailed, ContainerUnknown, ImageMissing, RuntimeFailure
from autostart.runtime.compose import inspection
from autostart.runtime.compose.command import ComposeCommand, Replacing
from autostart.runtime.compose.containers import Container
from autostart.runtime.compose.engine import Engine
from autostart.runtime.compose.failures import recognise
from autostart.runtime.compose.project import FileStamp, Project
from autostart.runtime.compose.scope import Scope

_LOOK_LIMIT_S = 10.0
_CREATE_LIMIT_S = 1800.0
"""Pulling or building an image takes minutes; whoever waits has limits of his own."""


class Creation:
    """Makes containers be what the compose file says, before a start.

    Whether a file was edited is told cheaply: by its stamp since the last creation here, or else by its change
    time against the containers' age. Then compose, which knows for certain, compares and replaces.
    """

    def __init__(self, engine: Engine, command: ComposeCommand, scope: Scope) -> None:
        self._engine = engine
        self._command = command
        self._scope = scope
        self._created_from: FileStamp | None = None

    async def ensure(self, project: Project, containers: Sequence[Container]) -> bool:
        """Create what is missing, replace what was edited while all is asleep; say whether there was any.

        Raises ContainerUnknown, ImageMissing, PortTaken, CommandFailed and what `ComposeCommand.create` raises.
        """
        for name in self._scope.foreign_names(project):
            if not any(container.answers_to(name) for container in containers):
                raise ContainerUnknown(
                    name, [project.container_names(service)[0] for service in project.services]
                )
        services = self._scope.services_to_start(project)
        mine = [container for container in containers if container.service in services]
        is_asleep = not any(container.is_alive for container in mine)
        if not self.is_complete(project, containers) or (
            mine and is_asleep and self._is_edited(project, mine)
        ):
            # What runs is left as it is: somebody uses it.
            await self._create(project, Replacing.CHANGED if is_asleep else Replacing.NONE)
            return True
        return False

    def is_complete(self, project: Project, containers: Iterable[Container]) -> bool:
        """Say whether each service that a start begins has a container."""
        return self._scope.services_to_start(project) <= {container.service for container in containers}

    async def renew(self, project: Project) -> None:
        """Replace all containers, for those whose network or the like has been removed. Raises as `ensure`."""
        await self._create(project, Replacing.ALL)

    def _is_edited(self, project: Project, containers: Iterable[Container]) -> bool:
        if self._created_from is not None:
            return project.stamp != self._created_from
        oldest_s = min(container.created_s for container in containers)
        return project.changed_at_s > oldest_s

    async def _create(self, project: Project, replacing: Replacing) -> None:
        enabled = {service.name for service in project.services.values() if service.is_enabled}
        services = self._scope.services_to_start(project)
        named = () if services == enabled else sorted(services)
        try:
            await self._command.create(project, named, replacing=replacing, limit_s=_CREATE_LIMIT_S)
        except CommandFailed as exc:
            raise await self._explain(exc, project, services) from exc
        self._created_from = project.stamp

    async def _explain(
        self, failure: CommandFailed, project: Project, services: Iterable[str]
    ) -> RuntimeFailure:
        """Return what is behind a failed creation: an image that cannot be had, or just what compose said."""
        known = recognise("\n".join(failure.log_tail))
        for service in services:
            image = project.services[service].image
            if image and not project.services[service].is_built and not await self._has_image(image):
                known = ImageMissing(image, failure.log_tail[-1] if failure.log_tail else "")
        if known is None:
            return failure
        known.log_tail = failure.log_tail
        return known

    async def _has_image(self, image: str) -> bool:
        return await self._engine.call(
            f"looking for the image {image}",
            lambda client: inspection.has_image(client, image),
            limit_s=_LOOK_LIMIT_S,
        )
