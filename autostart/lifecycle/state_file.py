"""Keep the idle clocks over a restart of autostart.

Owns one small JSON file: `{"version": 1, "lastUsed": {host: wall-clock seconds}}`. It is written by rename, so
a reader finds the old or the new one, never half of one, and at most once a second however busy the box is.
A file that cannot be read or written costs only the idle clocks and is told once; nothing else stops.
"""

import asyncio
import json
import logging
import os
from pathlib import Path

from autostart.lifecycle.events import Event, StartSucceeded, Used

_WRITE_AFTER_S = 1.0
_log = logging.getLogger("autostart.state")


class StateFile:
    """The idle clocks by host name, in memory and, soon after each change, on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_used_s = self._read()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._told = False

    def last_used_s(self, host: str) -> float | None:
        """Return when `host` was used last, in wall-clock seconds; None where it is not known."""
        return self._last_used_s.get(host)

    def on_event(self, event: Event) -> None:
        """Take note of a use; a lifecycle listener. A service that became ready is as good as used."""
        match event:
            case Used(service=host, last_used_s=used_s):
                self._last_used_s[host] = used_s
            case StartSucceeded(service=host, adopted=False):
                self._last_used_s.pop(host, None)
            case _:
                return
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_AFTER_S, self._begin_write)

    def _begin_write(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write(self._writing))

    async def close(self) -> None:
        """Write what is not written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._begin_write()
        if self._writing is not None:
            await asyncio.wait({self._writing})

    async def _write(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        text = json.dumps({"version": 1, "lastUsed": self._last_used_s}, indent=1, sort_keys=True)
        try:
            await asyncio.to_thread(_replace, self._path, text)
        except OSError as exc:
            if not self._told:
                _log.warning(
                    "state file %s cannot be written, idle clocks will not be kept: %s", self._path, exc
                )
            self._told = True
        else:
            self._told = False

    def _read(self) -> dict[str, float]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))["lastUsed"]
            return {str(host): float(used_s) for host, used_s in kept.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            _log.warning("state file %s cannot be read, idle clocks start anew: %s", self._path, exc)
            return {}


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
