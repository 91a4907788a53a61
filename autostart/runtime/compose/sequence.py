"""Starting a project's containers one after the other, as `depends_on` and its conditions ask."""

import logging
from collections.abc import Callable

from autostart.errors import RuntimeFailure
from autostart.runtime.compose.actions import ContainerActions, together
from autostart.runtime.compose.containers import Container
from autostart.runtime.compose.order import start_order, with_dependencies
from autostart.runtime.compose.project import Condition
from autostart.runtime.compose.scope import Scope
from autostart.runtime.compose.view import Sight

_log = logging.getLogger(__name__)


class StartSequence:
    """Starts what `scope` says. `on_failure` is told of each container that could not be started or waited for."""

    def __init__(
        self, scope: Scope, actions: ContainerActions, on_failure: Callable[[Container], None]
    ) -> None:
        self._scope = scope
        self._actions = actions
        self._on_failure = on_failure

    async def run(self, sight: Sight) -> None:
        """Start all of it that does not run. Raises RuntimeFailure where something fails that has to run."""
        project = sight.project
        vital = with_dependencies(project, self._scope.needed_services(project))
        for group in start_order(project, self._scope.services_to_start(project)):
            await together(
                self._start_service(sight, service, is_vital=service in vital) for service in group
            )
        foreign = set(self._scope.foreign_names(project))
        await together(
            self._start_container(container)
            for container in sight.containers
            if any(container.answers_to(name) for name in foreign)
        )

    async def _start_service(self, sight: Sight, service: str, *, is_vital: bool) -> None:
        try:
            for other, dependency in sight.project.services[service].dependencies.items():
                try:
                    for container in sight.of_service(other):
                        await self._wait_for(container, dependency.condition)
                except RuntimeFailure:
                    if dependency.required:
                        raise
            await together(self._start_container(item) for item in sight.of_service(service))
        except RuntimeFailure as exc:
            if is_vital:
                raise
            directory = sight.project.directory
            _log.warning("%s: %s does not have to run and did not start: %s", directory, service, exc)

    async def _start_container(self, container: Container) -> None:
        try:
            # Nobody may connect to its address before this has returned: that costs 0.8 s (DESIGN.md section 7).
            await self._actions.start(container)
        except RuntimeFailure:
            self._on_failure(container)
            raise

    async def _wait_for(self, container: Container, condition: Condition) -> None:
        try:
            await self._actions.wait_for(container, condition)
        except RuntimeFailure:
            self._on_failure(container)
            raise
