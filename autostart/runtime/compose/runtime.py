"""The Runtime of one compose project.

The engine starts and stops containers that exist, in the order of `depends_on`; the compose command is only
called to create what is missing or was edited. Containers are the truth: nothing about them is kept that is
not looked up again before it is acted on.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from autostart.errors import RuntimeFailure, StopFailed, StoppedByHand
from autostart.runtime.base import Endpoint, HealthResult, Listener, Observation, RunState, StopMethod
from autostart.runtime.compose import inspection
from autostart.runtime.compose.actions import ContainerActions, together
from autostart.runtime.compose.command import ComposeCommand
from autostart.runtime.compose.containers import Container, find_endpoint
from autostart.runtime.compose.creation import Creation
from autostart.runtime.compose.engine import Engine
from autostart.runtime.compose.events import EngineEvent
from autostart.runtime.compose.failures import EngineRefused
from autostart.runtime.compose.order import start_order, with_dependencies
from autostart.runtime.compose.project import Condition, Project
from autostart.runtime.compose.scope import Scope
from autostart.runtime.compose.view import ProjectView, Sight
from autostart.runtime.compose.watch import ContainerWatch

_log = logging.getLogger(__name__)

_LOOK_LIMIT_S = 10.0
_NOT_FOUND = 404


class ComposeRuntime:
    """The compose project in `directory`, behind `port` of this host.

    `containers` (names of containers, or of services in the file) must run for it to count as running; empty:
    all of the project's but one-shots. `is_alone` false says that somebody else looks after the project's
    other containers (see `Scope`).

    Construction asks nothing: a directory or an engine that is not there is told at use.
    """

    def __init__(
        self,
        engine: Engine,
        command: ComposeCommand,
        directory: Path,
        containers: Sequence[str],
        port: int,
        *,
        is_alone: bool = True,
    ) -> None:
        self.engine = engine
        self._directory = directory
        self._port = port
        self._scope = Scope(tuple(containers), is_alone)
        self._actions = ContainerActions(engine)
        self._creation = Creation(engine, command, self._scope)
        self._view = ProjectView(engine, command, directory, self._scope)
        self._suspect: Container | None = None
        self._watch: ContainerWatch | None = None
        self._starting: asyncio.Task[Endpoint] | None = None

    def __repr__(self) -> str:
        return f"<ComposeRuntime {self._directory} behind port {self._port}>"

    async def close(self) -> None:
        """See `Runtime.close`. The engine is its owner's to close."""
        await self._end_start()
        self.engine.unfollow(self)
        if self._watch is not None:
            self._watch.close()

    # --- looking -------------------------------------------------------------------------------------

    async def observe(self) -> Observation:
        """See `Runtime.observe`."""
        async with self.engine.looking:
            sight = await self._look()
        if sight.needed is None:
            return Observation(RunState.STOPPED)
        for container in sight.needed:
            if container.state not in {"running", "paused"}:
                return Observation(RunState.STOPPED, exit_code=container.exit_code)
        if not sight.runs:
            return Observation(RunState.PAUSED)
        return Observation(RunState.RUNNING, self._endpoint(sight), sight.needed[0].started_at_s)

    async def check_health(self) -> HealthResult | None:
        """See `Runtime.check_health`. Healthy means that every container that must run is."""
        if not self._view.needed:
            await self._look()
        outcome: HealthResult | None = None
        for container in self._view.needed:
            result = await self._actions.check_health(container)
            if result is not None and not result.healthy:
                return result
            outcome = result or outcome
        return outcome

    async def log_tail(self, lines: int) -> list[str]:
        """See `Runtime.log_tail`: of the container that failed last, else of the first that must run."""
        if not self._view.needed and self._suspect is None:
            await self._look()
        container = self._suspect or next(iter(self._view.needed), None)
        if container is None:
            return []
        return await self.engine.call(
            f"reading the log of the container {container.name}",
            lambda client: inspection.log_tail(client, container.id, lines),
            limit_s=_LOOK_LIMIT_S,
        )

    async def _look(self) -> Sight:
        return self._seen(await self._view.look())

    async def _look_at(self, project: Project) -> Sight:
        return self._seen(await self._view.look_at(project))

    def _seen(self, sight: Sight) -> Sight:
        """Let the watch know what runs now, and follow the project under its name."""
        if self._watch is not None:
            self.engine.follow(self, frozenset({f"project:{sight.project.name}"}))
            self._watch.set_running(
                {container.id for container in self._view.needed if container.is_running},
                {container.id for container in self._view.needed if container.state == "paused"},
            )
        return sight

    def _endpoint(self, sight: Sight) -> Endpoint:
        return find_endpoint((*self._view.needed, *sight.containers), self._port)

    # --- starting ------------------------------------------------------------------------------------

    async def start(self) -> Endpoint:
        """See `Runtime.start`. What has to be created first may take until an image is pulled or built.

        Several at once are one start. It outlives a cancelled caller, and is ended by `stop`: then it raises
        StoppedByHand to whoever still waits.
        """
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._run_start(), name=f"start {self._directory}")
            self._starting.add_done_callback(_look_at_outcome)
        starting = self._starting
        await asyncio.wait({starting})
        if starting.cancelled():
            raise StoppedByHand
        return starting.result()

    async def _run_start(self) -> Endpoint:
        await self._actions.settle()
        self._suspect = None
        sight = await self._look()
        if not sight.runs:
            if await self._creation.ensure(sight.project, sight.containers):
                sight = await self._look_at(sight.project)
            try:
                await self._start_in_order(sight)
            except EngineRefused as exc:
                if exc.status != _NOT_FOUND:
                    raise
                # Pruned: its network while it was asleep, or the container itself just now.
                _log.info("creating the containers of %s again: %s", self._directory, exc)
                await self._creation.renew(sight.project)
                await self._start_in_order(await self._look_at(sight.project))
            sight = await self._look_at(sight.project)
            for container in self._view.needed:
                if (
                    not container.is_running
                    and (death := await self._actions.death_of(container)) is not None
                ):
                    self._suspect = container
                    raise death
        return self._endpoint(sight)

    async def _start_in_order(self, sight: Sight) -> None:
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
            _log.warning("%s: %s does not have to run and did not start: %s", self._directory, service, exc)

    async def _start_container(self, container: Container) -> None:
        try:
            # Nobody may connect to its address before this has returned: that costs 0.8 s (DESIGN.md section 7).
            await self._actions.start(container)
        except RuntimeFailure:
            self._suspect = container
            raise

    async def _wait_for(self, container: Container, condition: Condition) -> None:
        try:
            await self._actions.wait_for(container, condition)
        except RuntimeFailure:
            self._suspect = container
            raise

    # --- stopping ------------------------------------------------------------------------------------

    async def stop(self, method: StopMethod, grace_s: float) -> None:
        """See `Runtime.stop`. In reverse order of the start; `grace_s` is for all containers together.

        Ends a start that is under way. A compose file that cannot be read does not keep the containers up.
        """
        await self._end_start()
        await self._actions.settle()
        sight = self._seen(await self._view.look_at_all())
        project = sight.project
        waiting = self._scope.to_stop(project, sight.containers)
        services = {container.service for container in waiting}.intersection(project.services)
        groups = [
            [item for item in waiting if item.service in group] for group in start_order(project, services)
        ]
        groups.append([container for container in waiting if container.service not in services])
        deadline_s = time.monotonic() + grace_s
        failure: RuntimeFailure | None = None
        for group in reversed(groups):
            left_s = max(0.0, deadline_s - time.monotonic())
            try:
                await together(self._actions.halt(container, method, left_s) for container in group)
            except RuntimeFailure as exc:
                failure = exc  # the others are stopped all the same
        if failure is not None:
            await self._confirm_stop(project, method, failure)

    async def _end_start(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})

    async def _confirm_stop(self, project: Project, method: StopMethod, failure: RuntimeFailure) -> None:
        """Raise StopFailed unless everything has ended in spite of `failure` (it was removed meanwhile, say)."""
        sight = await self._look_at(project)
        up = [
            container.name
            for container in self._scope.to_stop(project, sight.containers)
            if container.is_alive and not (method is StopMethod.PAUSE and container.state == "paused")
        ]
        if up:
            raise StopFailed(f"{', '.join(up)} still running: {failure}") from failure

    # --- events --------------------------------------------------------------------------------------

    def watch(self, listener: Listener) -> None:
        """See `Runtime.watch`. Starts the engine's reader of events where it does not run yet."""
        self._watch = ContainerWatch(
            listener, lambda: max(1, len(self._view.needed)), self._was_out_of_memory
        )
        places = {f"directory:{path}" for path in (self._directory, self._directory.resolve())}
        self.engine.follow(self, frozenset(places | {f"name:{name}" for name in self._scope.names}))

    def on_engine_event(self, event: EngineEvent) -> None:
        """Take an event of one of the project's containers; those that need not run are nobody's concern."""
        if self._watch is not None and self._is_needed(event):
            if event.action == "die":
                dead = (item for item in self._view.needed if item.id == event.container_id)
                self._suspect = next(dead, self._suspect)
            self._watch.on_event(event)

    def on_engine_connected(self) -> None:
        """Pass on that everything has to be compared afresh."""
        if self._watch is not None:
            self._watch.resync()

    def _is_needed(self, event: EngineEvent) -> bool:
        if self._view.project is None:
            return not self._scope.names or bool({event.container, event.service} & set(self._scope.names))
        return event.container in self._scope.foreign_names(self._view.project) or (
            event.service in self._scope.needed_services(self._view.project)
        )

    async def _was_out_of_memory(self, container_id: str) -> bool:
        return await self.engine.call(
            "looking at how a container ended",
            lambda client: inspection.was_out_of_memory(client, container_id),
            limit_s=_LOOK_LIMIT_S,
        )


def _look_at_outcome(task: asyncio.Task[Endpoint]) -> None:
    if not task.cancelled():
        task.exception()  # looked at, for callers that have gone
