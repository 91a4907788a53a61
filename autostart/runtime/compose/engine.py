"""The connection to the Docker engine: one client for all, each call in a thread of its own.

Knows nothing of compose.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import docker
from docker.utils import kwargs_from_env

from autostart.errors import RuntimeFailure, TimedOut
from autostart.runtime.compose.events import EngineEvent, EventStream
from autostart.runtime.compose.failures import ENGINE_TROUBLE, translate
from autostart.runtime.compose.silence import Comparison, parse_list
from autostart.runtime.compose.turns import Turns
from autostart.threads import run_in_thread

T = TypeVar("T")

_DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
_SOCKET_TIMEOUT_S = 60
"""After this long without a byte a call's thread ends, even where nobody waits for it any more."""
_GREETING_TIMEOUT_S = 5
"""For the first words with an engine, which all other calls wait for."""
_CLOSE_LIMIT_S = 1.0
_MOST_LOOKS = 8
"""A thousand projects are not looked at all at once when the engine comes back: each look is a thread."""
_POOL_SIZE = 32
"""Connections kept for the next calls; more than that are opened and closed, none waits."""
_LIST_EVERY_S = 30.0
_SLOWEST_LIST_S = 600.0
"""Where the list fails, the stream is opened anew and all compared afresh: that must not be a load of its own."""
_LIST_LIMIT_S = 20.0
_LATE_EVENT_S = 1.0
"""An event may be on its way while its effect is listed already."""


class Follower(Protocol):
    """Who wants to hear of events; both are called on the event loop."""

    def on_engine_event(self, event: EngineEvent) -> None:
        """Take one event of a container that it follows."""
        ...

    def on_engine_connected(self) -> None:
        """Learn that the stream of events began (again): what happened before it was not told."""
        ...


class Engine:
    """One Docker engine, whether it runs at the moment or not.

    Nothing is asked of the engine at construction; each call raises what is wrong at that moment, and the
    next one tries again. `address` as in DOCKER_HOST, which is where it comes from when left out. Belongs
    to the event loop that it is used on first.
    """

    def __init__(self, address: str | None = None) -> None:
        self._settings: dict[str, Any] = dict(kwargs_from_env()) if address is None else {"base_url": address}
        self.address: str = self._settings.setdefault("base_url", _DEFAULT_ADDRESS)
        self._turns = Turns(_MOST_LOOKS)
        self._client: docker.APIClient | None = None
        self._client_lock = threading.Lock()
        self._followers: dict[str, tuple[Follower, ...]] = {}  # a set of one is 0.2 kB
        self._stream: EventStream | None = None
        self._comparison = Comparison()
        self._listing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "connected" if self._client is not None else "not connected"
        return f"<Engine {self.address} {state}>"

    @property
    def looking(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Entered by who looks at a project for nobody who waits."""
        return self._turns.turn()

    @property
    def reconnects(self) -> int:
        """Return how often the stream of events had to be opened again."""
        return self._stream.reconnects if self._stream else 0

    # --- calls ---------------------------------------------------------------------------------------

    async def call(self, operation: str, function: Callable[[docker.APIClient], T], *, limit_s: float) -> T:
        """Run `function` with the client, in a thread of its own.

        `operation` names it in errors ("starting the container web"). Raises TimedOut after `limit_s`
        seconds, and what `failures.translate` makes of the SDK's exceptions. Cancellation leaves the thread
        to end by itself.
        """

        def work() -> T:
            try:
                return function(self.connect())
            except ENGINE_TROUBLE as exc:
                raise translate(exc, operation, self.address) from exc

        return await run_in_thread(operation, work, limit_s=limit_s)

    def connect(self) -> docker.APIClient:
        """Return the client, made (with the engine's API version) where there is none. Blocks; for threads."""
        with self._client_lock:
            if self._client is None:
                self._probe()
                client = docker.APIClient(
                    version="auto", timeout=_GREETING_TIMEOUT_S, max_pool_size=_POOL_SIZE, **self._settings
                )
                client.timeout = _SOCKET_TIMEOUT_S
                if self.address.startswith("unix://"):
                    # No proxy or netrc applies to it; asking the environment for them takes 0.13 ms a call.
                    client.trust_env = False
                self._client = client
            return self._client

    def _probe(self) -> None:
        """Raise the plain OSError where nobody listens; the SDK's client would leave its socket open."""
        if self.address.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_GREETING_TIMEOUT_S)
                probe.connect(self.address.removeprefix("unix://"))

    def disconnect(self) -> None:
        """Forget the client: its connections are dead, and another engine may answer next time."""
        with self._client_lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # --- events --------------------------------------------------------------------------------------

    def follow(self, follower: Follower, keys: frozenset[str]) -> None:
        """Tell `follower` of events with one of `keys` (see `EngineEvent.keys`). Starts the reader."""
        for key in keys:
            followers = self._followers.get(key, ())
            if follower not in followers:
                self._followers[key] = (*followers, follower)
        if self._stream is None:
            loop = asyncio.get_running_loop()
            self._stream = EventStream(self, loop, self._on_event, self._on_connected)
            self._listing = loop.create_task(self._list_now_and_then(self._stream), name="list what runs")

    def unfollow(self, follower: Follower) -> None:
        """Tell `follower` of nothing any more."""
        for key in [key for key, followers in self._followers.items() if follower in followers]:
            others = tuple(other for other in self._followers.pop(key) if other is not follower)
            if others:
                self._followers[key] = others

    def followers(self, keys: frozenset[str]) -> frozenset[Follower]:
        """Return who follows any of `keys`."""
        return frozenset().union(*(self._followers.get(key, ()) for key in keys))

    async def _list_now_and_then(self, stream: EventStream) -> None:
        """Notice a stream that is open and silent, for as long as it is followed (see `silence`).

        Costs one call for all services, which lists what runs and not what is asleep.
        """
        pause_s = _LIST_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            try:
                listed = await self.call(
                    "listing what runs",
                    lambda client: parse_list(client.containers()),
                    limit_s=_LIST_LIMIT_S,
                )
            except Exception as exc:  # noqa: BLE001 - an answer that nobody has thought of must not end this
                stream.reopen(str(exc) if isinstance(exc, RuntimeFailure) else repr(exc))
                pause_s = min(2 * pause_s, _SLOWEST_LIST_S)
                continue
            pause_s = _LIST_EVERY_S
            untold, moved = self._comparison.compare(listed)
            if untold:
                await asyncio.sleep(_LATE_EVENT_S)
                if not all(self._comparison.is_told(container_id) for container_id in untold):
                    stream.reopen("containers changed and nothing was told: everything is compared afresh")
            for container in moved:
                for follower in self.followers(frozenset(container.keys)):
                    follower.on_engine_connected()

    def _on_event(self, event: EngineEvent) -> None:
        self._comparison.tell(event.container_id)
        for follower in self.followers(frozenset(event.keys)):
            follower.on_engine_event(event)

    def _on_connected(self) -> None:
        self._comparison.reset()
        for follower in set().union(*self._followers.values()):
            follower.on_engine_connected()

    async def close(self) -> None:
        """End the reader of events and close the connections. Calls still under way end by themselves."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.wait({self._listing})
        if self._stream is not None:
            await self._stream.close()
            self._stream = None
        # In a thread: a call that greets an engine which hangs has the lock.
        with contextlib.suppress(TimedOut):
            await run_in_thread("letting go of the engine", self.disconnect, limit_s=_CLOSE_LIMIT_S)
