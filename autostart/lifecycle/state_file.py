"""Keep the idle clocks and the holds over a reload and, in a file, over a restart of autostart.

Owns one small JSON file: `{"version": 1, "lastUsed": {host: seconds}, "heldUntil": {host: seconds}}`, in
wall-clock seconds since the epoch. It is written by rename, so a reader finds the old or the new one, never half
of one, and at most once a second however busy the box is. A file that cannot be read or written costs only the
clocks and is told once; nothing else stops, and a disk that hangs is waited for at the end only, and not for long.
What is no state file is not lost: a file is kept as `NAME.bad`, a device or a pipe is left alone.
"""

import asyncio
import contextlib
import errno
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autostart.lifecycle.events import Event, Held, StartSucceeded, Used
from autostart.threads import run_in_thread

_LATEST_S = 253_402_300_799.0
"""The end of the year 9999: what is later no calendar knows."""
_WRITE_AFTER_S = 1.0
_CLOSE_LIMIT_S = 5.0
_MOST_BYTES = 2**24
"""Of what is read: the clocks of 100,000 services take less."""
_log = logging.getLogger("autostart.state")


def replace_file(path: Path, text: str) -> None:
    """Write `text` to the file at `path`, as a whole or not at all; blocks. Raises OSError.

    There is one name for what is not whole yet, so that what a killed process has left goes with the next write.
    """
    if path.exists() and not (path.is_file() or path.is_symlink()):
        raise FileExistsError(errno.EEXIST, "something that is not a file has this name", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with new.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


class StateFile:
    """The clocks by host name, in memory and, soon after each change, on disk where there is a `path`.

    `replace` is how a file is written: it may block, and raises OSError.
    """

    def __init__(self, path: Path | None, *, replace: Callable[[Path, str], None] = replace_file) -> None:
        self._path = path
        self._replace = replace
        self._last_used_s: dict[str, float] = {}
        self._held_until_s: dict[str, float] = {}
        if path is not None:
            self._read(path)
        self._is_stale = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._told = False

    def last_used_s(self, host: str) -> float | None:
        """Return when `host` was used last, in wall-clock seconds; None where it is not known."""
        return self._last_used_s.get(host)

    def held_until_s(self, host: str) -> float | None:
        """Return until when somebody holds `host` awake, in wall-clock seconds; None where nobody does."""
        return self._held_until_s.get(host)

    def on_event(self, event: Event) -> None:
        """Take note of a use or a hold; a lifecycle listener. A service that became ready is as good as used."""
        match event:
            case Used(service=host, last_used_s=used_s):
                self._last_used_s[host] = used_s
            case StartSucceeded(service=host, adopted=False):
                self._last_used_s.pop(host, None)
            case Held(service=host, until_s=None):
                self._held_until_s.pop(host, None)
            case Held(service=host, until_s=until_s) if until_s is not None:
                self._held_until_s[host] = until_s
            case _:
                return
        self._is_stale = True
        self._write_soon()

    def _write_soon(self) -> None:
        if self._path is not None and self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_AFTER_S, self._begin_write, self._path)

    def _begin_write(self, path: Path) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write(path))

    async def close(self, limit_s: float = _CLOSE_LIMIT_S) -> None:
        """Write what is not written yet; a disk that takes longer than `limit_s` is told and left behind."""
        if self._path is None:
            return
        try:
            async with asyncio.timeout(limit_s):
                while self._timer is not None or self._writing is not None:
                    if self._timer is not None:
                        self._timer.cancel()
                        self._begin_write(self._path)
                    if self._writing is not None:
                        await asyncio.shield(self._writing)
        except TimeoutError:
            told = "state file %s was not written within %g s: the last idle clocks are lost"
            _log.error(told, self._path, limit_s)

    async def _write(self, path: Path) -> None:
        self._is_stale = False
        kept = {"version": 1, "lastUsed": self._last_used_s, "heldUntil": self._held_until_s}
        text = json.dumps(kept, indent=1, sort_keys=True)
        try:
            await run_in_thread("writing the state file", lambda: self._replace(path, text))
        except (OSError, RuntimeError) as exc:  # also: no thread is to be had
            if not self._told:
                _log.warning("state file %s cannot be written, idle clocks will not be kept: %s", path, exc)
            self._told = True
        else:
            self._told = False
        finally:
            self._writing = None
        if self._is_stale:
            self._write_soon()

    def _read(self, path: Path) -> None:
        now_s = time.time()
        try:
            kept = json.loads(_contents(path))
            used = _clocks(kept["lastUsed"])
            held = _clocks(kept.get("heldUntil", {}))  # absent in files of before there were holds in them
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
            _log.warning("state file %s cannot be read, idle clocks start anew: %s", path, exc)
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    path.replace(path.with_name(f"{path.name}.bad"))
            return
        # Nothing was used in the future: the clock has been put back since.
        self._last_used_s = {host: min(used_s, now_s) for host, used_s in used.items()}
        self._held_until_s = {host: until_s for host, until_s in held.items() if until_s > now_s}


def _contents(path: Path) -> str:
    """Return what the file holds; a pipe would keep us for ever, and a device has no end. Raises OSError, ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    with path.open(encoding="utf-8") as file:
        return file.read(_MOST_BYTES)


def _clocks(kept: dict[str, Any]) -> dict[str, float]:
    """Return wall-clock seconds by host name. Raises ValueError, TypeError, AttributeError for anything else."""
    clocks: dict[str, float] = {}
    for host, at_s in kept.items():
        if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s <= _LATEST_S:
            raise ValueError(f"{at_s!r} is not a time")
        clocks[host] = float(at_s)
    return clocks
