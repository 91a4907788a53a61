"""The Runtime of one compose project.

The engine starts and stops containers that exist, in the order of `depends_on`; the compose command is only
called to create what is missing or was edited. Containers are the truth: nothing about them is kept that is
not looked up again before it is acted on.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autostart.errors import CommandFailed, RuntimeFailure, StopFailed, StoppedByHand
from autostart.runtime.base import Endpoint, HealthResult, Listener, Observation, RunState, StopMethod
from autostart.runtime.compose import inspection
from autostart.runtime.compose.actions import ContainerActions, together
from autostart.runtime.compose.command import ComposeCommand
from autostart.runtime.compose.containers import Container, find_endpoint
from autostart.runtime.compose.creation import Creation
from autostart.runtime.compose.engine import Engine
from autostart.runtime.compose.events import EngineEvent
from autostart.runtime.compose.failures import EngineRefused
from autostart.runtime.compose.order import start_order
from autostart.runtime.compose.project import Project
from autostart.runtime.compose.scope import Scope
from autostart.runtime.compose.sequence import StartSequence
from autostart.runtime.compose.view import ProjectView, Sight
from autostart.runtime.compose.watch import ContainerWatch

_log = logging.getLogger(__name__)

_LOOK_LIMIT_S = 10.0
_NOT_FOUND = 404


class ComposeRuntime:
    """The compose project in `directory`, behind `port` of this host.

    `containers` (names of containers, or of services in the file) must run for it to count as running; empty:
    all of the project's but one-shots. Another runtime that follows the same directory on the same engine, from
    its `watch` to its `close`, looks after the project's other containers (see `Scope`).

    Construction asks nothing: a directory or an engine that is not there is told at use.
    """

    def __init__(
        self,
        engine: Engine,
        command: ComposeCommand,
        directory: Path,
        containers: Sequence[str],
        port: int,
    ) -> None:
        self.engine = engine
        self._directory = directory
        self._port = port
        self._directory_keys = frozenset(f"directory:{path}" for path in (directory, directory.resolve()))
        self._scope = Scope(tuple(containers), self._is_alone)
        self._actions = ContainerActions(engine)
        self._creation = Creation(engine, command, self._scope)
        self._view = ProjectView(engine, command, directory, self._scope)
        self._suspect: Container | None = None
        self._watch: ContainerWatch | None = None
        self._starting: asyncio.Task[Endpoint] | None = None
        self._stopping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ComposeRuntime {self._directory} behind port {self._port}>"

    async def close(self) -> None:
        """See `Runtime.close`. A stop under way is finished first. The engine is its owner's to close."""
        if under_way := self._end_start():
            await asyncio.wait(under_way)
        self.engine.unfollow(self)
        if self._watch is not None:
            self._watch.close()

    # --- looking -------------------------------------------------------------------------------------

    async def observe(self) -> Observation:
        """See `Runtime.observe`."""
        async with self.engine.looking:
            sight = await self._look()
        has_remains = bool(self._scope.remains(sight.project, sight.containers))
        if sight.needed is None:
            return Observation(RunState.STOPPED, has_remains=has_remains)
        for container in sight.needed:
            if container.state not in {"running", "paused"}:
                return Observation(RunState.STOPPED, exit_code=container.exit_code, has_remains=has_remains)
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

    async def cpu_seconds(self) -> Mapping[str, float]:
        """See `Runtime.cpu_seconds`: by container, of those that run and that a stop would end."""
        async with self.engine.looking:
            sight = await self._look()
            return await self._actions.cpu_seconds(self._scope.to_stop(sight.project, sight.containers))

    async def log_tail(self, lines: int) -> list[str]:
        """See `Runtime.log_tail`: of the container that failed last, else of the first that must run."""
        if not self._view.needed and self._suspect is None:
            await self._look()
        container = self._suspect or next(iter(self._view.needed), None)
        if container is None:
            return []
        return await self._actions.log_tail(container, lines)

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

        Several at once are one start, which comes after a stop under way. It outlives a cancelled caller, and is
        ended by `stop`: then it raises StoppedByHand to whoever still waits.
        """
        if self._starting is None or self._starting.done() or self._starting.cancelling():
            self._starting = asyncio.create_task(
                self._run_start(self._stopping), name=f"start {self._directory}"
            )
            self._starting.add_done_callback(_look_at_outcome)
        starting = self._starting
        await asyncio.wait({starting})
        if starting.cancelled():
            raise StoppedByHand
        return starting.result()

    async def _run_start(self, after: asyncio.Task[None] | None) -> Endpoint:
        if after is not None:
            await asyncio.wait({after})
        await self._actions.settle()
        self._suspect = None
        sight = await self._look()
        if not sight.runs:
            await self._bring_up(await self._completed(sight))
            sight = await self._look_at(sight.project)
            for container in self._view.needed:
                if (
                    not container.is_running
                    and (death := await self._actions.death_of(container)) is not None
                ):
                    self._suspect = container
                    raise death
        return self._endpoint(sight)

    async def _completed(self, sight: Sight) -> Sight:
        """Create what is missing or was edited, and return what there is then."""
        try:
            if not await self._creation.ensure(sight.project, sight.containers):
                return sight
        except CommandFailed:
            now = await self._look_at(sight.project)
            was_missing = not self._creation.is_complete(sight.project, sight.containers)
            if was_missing and self._creation.is_complete(sight.project, now.containers):
                return now  # somebody has brought it up at the same time
            raise
        return await self._look_at(sight.project)

    async def _bring_up(self, sight: Sight) -> None:
        """Start everything; what somebody has removed meanwhile or while it was asleep is created again."""
        sequence = StartSequence(self._scope, self._actions, self._blame)
        is_completed = False
        while True:
            try:
                return await sequence.run(sight)
            except EngineRefused as exc:
                if exc.status != _NOT_FOUND:
                    raise
                _log.info("creating the containers of %s again: %s", self._directory, exc)
            before = {container.id for container in sight.containers}
            sight = await self._look_at(sight.project)
            if sight.runs:  # somebody has brought it up again himself
                return None
            if is_completed or before <= {container.id for container in sight.containers}:
                # Not the container is gone, but its network or the like.
                await self._creation.renew(sight.project)
                return await sequence.run(await self._look_at(sight.project))
            sight = await self._completed(sight)
            is_completed = True

    def _blame(self, container: Container) -> None:
        self._suspect = container

    # --- stopping ------------------------------------------------------------------------------------

    async def stop(self, method: StopMethod, grace_s: float) -> None:
        """See `Runtime.stop`. In reverse order of the start; `grace_s` is for all containers together.

        Ends a start that is under way. Outlives a cancelled caller: half a project would be left up. A compose
        file that cannot be read does not keep the containers up.
        """
        self._stopping = asyncio.create_task(
            self._run_stop(self._end_start(), method, grace_s), name=f"stop {self._directory}"
        )
        self._stopping.add_done_callback(_look_at_outcome)
        await asyncio.shield(self._stopping)

    async def _run_stop(self, after: set[asyncio.Task[Any]], method: StopMethod, grace_s: float) -> None:
        if after:
            await asyncio.wait(after)
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

    def _end_start(self) -> set[asyncio.Task[Any]]:
        """End a start under way; return what is still to be waited for, a stop under way included."""
        if self._starting is not None:
            self._starting.cancel()
        return {task for task in (self._starting, self._stopping) if task is not None}

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
            listener, lambda: max(1, len(self._view.needed)), self._is_starting, self._was_out_of_memory
        )
        self.engine.follow(self, self._directory_keys | {f"name:{name}" for name in self._scope.names})

    def on_engine_event(self, event: EngineEvent) -> None:
        """Take an event of one of the project's containers; those that need not run are nobody's concern."""
        if self._watch is None:
            return
        project = self._view.project
        is_ours = f"directory:{event.directory}" in self._directory_keys
        if not (is_ours or self._scope.may_own(project, event.container, event.project)):
            return
        if self._scope.must_run(project, event.container, event.service):
            if event.action == "die":
                dead = (item for item in self._view.needed if item.id == event.container_id)
                self._suspect = next(dead, self._suspect)
            self._watch.on_event(event)
        elif event.action == "start" and project is not None and event.service not in project.services:
            self._watch.resync()  # the file was edited, and somebody has brought it up

    def on_engine_connected(self) -> None:
        """Pass on that everything has to be compared afresh."""
        if self._watch is not None:
            self._watch.resync()

    def _is_alone(self) -> bool:
        return self.engine.followers(self._directory_keys) <= {self}

    def _is_starting(self) -> bool:
        return self._starting is not None and not self._starting.done()

    async def _was_out_of_memory(self, container_id: str) -> bool:
        return await self.engine.call(
            "looking at how a container ended",
            lambda client: inspection.was_out_of_memory(client, container_id),
            limit_s=_LOOK_LIMIT_S,
        )


def _look_at_outcome(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # looked at, for callers that have gone
