"""Keep the idle clocks and the holds over a reload and, in a file, over a restart of autostart.

Owns one small JSON file: `{"version": 1, "lastUsed": {host: seconds}, "heldUntil": {host: seconds}}`, in
wall-clock seconds since the epoch. It is written by rename, so a reader finds the old or the new one, never half
of one, and at most once a second however busy the box is. A file that cannot be read or written costs only the
clocks and is told once; nothing else stops.
"""

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from autostart.lifecycle.events import Event, Held, StartSucceeded, Used

_LATEST_S = 253_402_300_799.0
"""The end of the year 9999: what is later no calendar knows."""
_WRITE_AFTER_S = 1.0
_log = logging.getLogger("autostart.state")


class StateFile:
    """The clocks by host name, in memory and, soon after each change, on disk where there is a `path`."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last_used_s: dict[str, float] = {}
        self._held_until_s: dict[str, float] = {}
        if path is not None:
            self._read(path)
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
        if self._timer is None and self._path is not None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_AFTER_S, self._begin_write)

    def _begin_write(self) -> None:
        self._timer = None
        assert self._path is not None, "nothing is written without one"
        self._writing = asyncio.get_running_loop().create_task(self._write(self._path, self._writing))

    async def close(self) -> None:
        """Write what is not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._begin_write()
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def _write(self, path: Path, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        kept = {"version": 1, "lastUsed": self._last_used_s, "heldUntil": self._held_until_s}
        text = json.dumps(kept, indent=1, sort_keys=True)
        try:
            await asyncio.to_thread(_replace, path, text)
        except OSError as exc:
            if not self._told:
                _log.warning("state file %s cannot be written, idle clocks will not be kept: %s", path, exc)
            self._told = True
        else:
            self._told = False

    def _read(self, path: Path) -> None:
        now_s = time.time()
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            used = _clocks(kept["lastUsed"])
            held = _clocks(kept.get("heldUntil", {}))  # absent in files of before there were holds in them
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
            _log.warning("state file %s cannot be read, idle clocks start anew: %s", path, exc)
            return
        # Nothing was used in the future: the clock has been put back since.
        self._last_used_s = {host: min(used_s, now_s) for host, used_s in used.items()}
        self._held_until_s = {host: until_s for host, until_s in held.items() if until_s > now_s}


def _clocks(kept: dict[str, Any]) -> dict[str, float]:
    """Return wall-clock seconds by host name. Raises ValueError, TypeError, AttributeError for anything else."""
    clocks: dict[str, float] = {}
    for host, at_s in kept.items():
        if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s <= _LATEST_S:
            raise ValueError(f"{at_s!r} is not a time")
        clocks[host] = float(at_s)
    return clocks


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
