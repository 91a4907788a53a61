"""Start the server: listen first, load beside, serve.

The order is the point. The socket listens before anything heavy is imported, so a request that arrives during the
start waits in the kernel instead of being refused. The model's libraries come next, so that the model loads (in C++,
in its own thread) while this thread imports the web framework. Measured on 2 cores with whisper-tiny: listening after
0.03 s, ready after 0.8 s.
"""

# ruff: noqa: PLC0415 -- see above: what is imported when is what this module is about

import gc
import logging
import os
import resource
import signal
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from speech_common.environment import SettingError

from whisper_server.settings import Settings

if TYPE_CHECKING:
    from speech_common.loads import LoadTally

    from whisper_server.registry import Registry

EXIT_SETTINGS = 2
EXIT_MODEL = 3
EXIT_LISTEN = 4

_BACKLOG = 2048
_LAST_WORDS_S = 0.2
_log = logging.getLogger("whisper")


def main() -> NoReturn:
    """Run until SIGTERM or SIGINT (exit 0), or until the model turns out not to load (exit 3)."""
    # A dump of the memory would leave recordings and transcripts on the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Nothing made during the imports is garbage; collecting in between costs 0.1 s of the start.
    gc.disable()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_on_signal)
    try:
        settings = Settings.from_environment(os.environ)
    except SettingError as exc:
        sys.stderr.write(f"event=bad_setting cause={str(exc)!r}\n")
        _exit(EXIT_SETTINGS)
    logging.basicConfig(level=settings.log_level, format="%(message)s", stream=sys.stderr)
    for chatty in ("faster_whisper", "httpx", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    listener = _listen(settings)
    registry, loads = _start_loading(settings)
    _exit(EXIT_MODEL if _serve(settings, registry, loads, listener) else 0)


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        where = f"{settings.host}:{settings.port}"
        _log.error("event=listen_failed address=%s cause=%r", where, exc.strerror or str(exc))
        _exit(EXIT_LISTEN)
    host, port = listener.getsockname()[:2]
    _log.info("event=listening address=%s:%d model=%s", host, port, settings.model_name)
    return listener


def _start_loading(settings: Settings) -> "tuple[Registry, LoadTally]":
    # In this thread on purpose: imports in two threads at once only take turns, and may deadlock in circles.
    from speech_common.loads import LoadTally

    from whisper_server.registry import Registry

    registry, loads = Registry(settings), LoadTally()
    registry.on_load.append(loads.add)
    registry.start_loading()
    return registry, loads


def _serve(settings: Settings, registry: "Registry", loads: "LoadTally", listener: socket.socket) -> bool:
    """Serve until told to stop. Returns whether the model failed to load, which ends the serving."""
    import asyncio

    import uvloop
    from speech_common.jobs import Jobs

    from whisper_server.api import create_app
    from whisper_server.engine import Engine
    from whisper_server.server import Server

    jobs = Jobs(
        settings.workers,
        settings.queue_limit,
        keep_s=settings.job_keep_s,
        hold_s=settings.job_hold_s,
        queue_setting="WHISPER_QUEUE",
    )
    app = create_app(settings, registry, Engine(registry, settings), jobs, loads)
    server = Server(settings, app, jobs, _BACKLOG)
    gc.freeze()
    gc.enable()

    async def serve() -> bool:
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
        return registry.failure is not None

    return uvloop.run(serve())


def _exit_on_signal(number: int, _: FrameType | None) -> None:
    """End at once. Before serving there is nothing to finish; after it uvicorn raises the signal again."""
    _log.info("event=stopped signal=%s", signal.Signals(number).name)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """Leave without the interpreter's clean-up, which would wait for a running transcription or download."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
