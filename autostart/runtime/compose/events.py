"""The engine's events: one reader for the whole engine, in one thread, told to the event loop.

Owns the reconnecting. After every connection, the first included, `on_connected` is called before any event:
whatever happened earlier has to be looked up. The stream then has no gap, as events are asked for since a
moment before the connection (the engine keeps the latest 256).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import docker

from autostart.runtime.compose.failures import ENGINE_TROUBLE, translate

_log = logging.getLogger(__name__)

_ACTIONS = ["start", "die", "kill", "oom", "pause", "unpause", "health_status"]
_FIRST_RETRY_S = 0.1
_SLOWEST_RETRY_S = 5.0
_CLOSE_ATTEMPTS = 200
_CLOSE_PAUSE_S = 0.005
_PROJECT = "com.docker.compose.project"
_DIRECTORY = "com.docker.compose.project.working_dir"
_SERVICE = "com.docker.compose.service"
_ONE_OFF = "com.docker.compose.oneoff"


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """One event of one container. `action` is Docker's word, `health` the status of a `health_status`."""

    action: str
    container_id: str
    container: str
    service: str
    project: str
    directory: str
    exit_code: int | None = None
    signal: int | None = None
    health: str = ""

    @classmethod
    def of_labels(
        cls, action: str, container_id: str, container: str, labels: Mapping[str, str], **facts: Any
    ) -> "EngineEvent":
        """Return the event of a container with compose's `labels`; `facts` are the fields that not all have."""
        return cls(
            action,
            container_id,
            container,
            labels.get(_SERVICE, ""),
            labels.get(_PROJECT, ""),
            labels.get(_DIRECTORY, ""),
            **facts,
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """Return by what a follower may ask for it: container id or name, project, directory."""
        return (
            f"id:{self.container_id}",
            f"name:{self.container}",
            f"project:{self.project}",
            f"directory:{self.directory}",
        )


class Connection(Protocol):
    """What the reader needs of the engine."""

    address: str

    def connect(self) -> docker.APIClient:
        """Return a client; blocks."""
        ...

    def disconnect(self) -> None:
        """Make the next `connect` a fresh one."""
        ...


class EventStream:
    """The reader: a daemon thread from construction to `close`.

    `on_event` and `on_connected` are called on `loop`. `reconnects` counts the streams after the first.
    """

    def __init__(
        self,
        connection: Connection,
        loop: asyncio.AbstractEventLoop,
        on_event: Callable[[EngineEvent], None],
        on_connected: Callable[[], None],
    ) -> None:
        self.reconnects = 0
        self._connection = connection
        self._loop = loop
        self._on_event = on_event
        self._on_connected = on_connected
        self._closing = threading.Event()
        self._why_reopened = ""
        self._stream: Any = None
        self._thread = threading.Thread(target=self._run, name="docker events", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End the thread and its connection; nothing is told any more.

        A thread that hangs in connecting is left behind: it ends by itself and keeps nothing alive.
        """
        self._closing.set()
        for _ in range(_CLOSE_ATTEMPTS):
            self._cut()  # again and again: it may have been about to open a stream
            if not self._thread.is_alive():
                return
            await asyncio.sleep(_CLOSE_PAUSE_S)

    def reopen(self, why: str) -> None:
        """Give up the present stream for a new one, and say `why` in the log."""
        if self._stream is not None:
            self._why_reopened = why
            self._cut()

    def _cut(self) -> None:
        if (stream := self._stream) is not None:
            try:
                stream.close()
            except (AttributeError, *ENGINE_TROUBLE):
                pass  # it has ended by itself meanwhile

    def _run(self) -> None:
        retry_s, was_connected = _FIRST_RETRY_S, False
        trouble = ""
        while not self._closing.is_set():
            try:
                since_s = time.time()
                self._stream = self._connection.connect().events(
                    since=f"{since_s:.6f}",  # type: ignore[call-overload]  # its stubs know whole seconds only
                    filters={"type": ["container"], "event": _ACTIONS},
                    decode=True,
                )
                if trouble:
                    _log.info("the Docker engine's events are followed again")
                self.reconnects += was_connected
                retry_s, was_connected, trouble = _FIRST_RETRY_S, True, ""
                self._tell(self._on_connected)
                self._read(self._stream)
                if not self._closing.is_set():
                    trouble, self._why_reopened = self._why_reopened or "the stream ended", ""
                    _log.warning("the Docker engine's events: %s", trouble)
            except (AttributeError, *ENGINE_TROUBLE) as exc:
                if self._closing.is_set():
                    return
                said = str(translate(exc, "following events", self._connection.address))
                if said != trouble:  # one line a trouble, not one an attempt
                    _log.warning("the Docker engine's events cannot be followed: %s", said)
                trouble = said
            self._stream = None
            self._connection.disconnect()
            if self._closing.wait(retry_s):
                return
            retry_s = min(retry_s * 2, _SLOWEST_RETRY_S)

    def _read(self, stream: Iterator[dict[str, Any]]) -> None:
        for raw in stream:
            if self._closing.is_set():
                return
            event = parse_event(raw)
            if event is not None:
                self._tell(self._on_event, event)

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed
            self._closing.set()


def is_one_off(labels: Mapping[str, str]) -> bool:
    """Say whether these are a container's that `compose run` made: none of the project's own."""
    return labels.get(_ONE_OFF) == "True"


def parse_event(raw: dict[str, Any]) -> EngineEvent | None:
    """Return the event that the engine's JSON tells; None for what is not about a project's own container."""
    actor = raw.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    action, _, status = str(raw.get("Action", "")).partition(": ")
    if action not in _ACTIONS or is_one_off(attributes):
        return None
    return EngineEvent.of_labels(
        action,
        str(actor.get("ID", "")),
        attributes.get("name", ""),
        attributes,
        exit_code=_number(attributes.get("exitCode")),
        signal=_number(attributes.get("signal")),
        health=status,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.lstrip("-").isdigit() else None
