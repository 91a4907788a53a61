"""The steps of a speech server's start and end, which its `__main__` puts into their order.

What is imported when is what this is about: nothing here is heavy before `serve`, which imports the web framework.
"""

# ruff: noqa: PLC0415 -- see above

import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from speech_common.environment import SettingError
from speech_common.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from speech_common.jobs import Jobs
    from speech_common.models.registry import Registry

EXIT_SETTINGS = 2
EXIT_MODEL = 3
EXIT_LISTEN = 4

_BACKLOG = 2048
_LAST_WORDS_S = 0.2
_log = logging.getLogger("speech.start")
S = TypeVar("S", bound=ServerSettings)


def begin(kind: type[S], chatty: tuple[str, ...] = ()) -> S:
    """Prepare the process, and read its settings; exit 2 where they cannot be used. `chatty` loggers only warn."""
    # A dump of the memory would leave recordings and transcripts on the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Nothing made during the imports is garbage; collecting in between costs 0.1 s of the start.
    gc.disable()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_on_signal)
    try:
        settings = kind.from_environment(os.environ)
    except SettingError as exc:
        sys.stderr.write(f"event=bad_setting cause={str(exc)!r}\n")
        leave(EXIT_SETTINGS)
    logging.basicConfig(level=settings.log_level, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "uvicorn", *chatty):
        logging.getLogger(name).setLevel(logging.WARNING)
    return settings


def listen(settings: ServerSettings) -> socket.socket:
    """Take connections from here on: they wait in the kernel. Exit 4 where the address is not to be had."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        where = f"{settings.host}:{settings.port}"
        _log.error("event=listen_failed address=%s cause=%r", where, exc.strerror or str(exc))
        leave(EXIT_LISTEN)
    host, port = listener.getsockname()[:2]
    _log.info("event=listening address=%s:%d model=%s", host, port, settings.model_name)
    return listener


def serve(
    settings: ServerSettings,
    registry: "Registry[Any]",
    listener: socket.socket,
    make_app: "Callable[[Jobs], ASGIApp]",
) -> int:
    """Serve until told to stop, or until the registry fails. Returns the exit code."""
    import asyncio

    import uvloop

    from speech_common.jobs import Jobs
    from speech_common.server import Server

    jobs = Jobs(
        settings.workers,
        settings.queue_limit,
        keep_s=settings.job_keep_s,
        hold_s=settings.job_hold_s,
        queue_setting="WHISPER_QUEUE",
    )
    server = Server(make_app(jobs), jobs, backlog=_BACKLOG, shutdown_s=settings.shutdown_s)
    gc.freeze()
    gc.enable()

    async def run() -> int:
        async def stop_when_failed() -> None:
            await registry.wait_until_failed()
            # Those who wait, here or still in the kernel's queue, are told the cause before the process ends.
            while not server.started:  # noqa: ASYNC110 -- uvicorn has no event to wait for
                await asyncio.sleep(0.01)
            await asyncio.sleep(_LAST_WORDS_S)
            server.should_exit = True

        watcher = asyncio.create_task(stop_when_failed())
        try:
            await server.serve(sockets=[listener])
        finally:
            watcher.cancel()
        return EXIT_MODEL if registry.failure is not None else 0

    return uvloop.run(run())


def leave(code: int) -> NoReturn:
    """Leave without the interpreter's clean-up, which would wait for a running transcription or download."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    """End at once. Before serving there is nothing to finish; after it uvicorn raises the signal again."""
    _log.info("event=stopped signal=%s", signal.Signals(number).name)
    leave(0)
