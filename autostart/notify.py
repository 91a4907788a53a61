"""systemd: telling it how things are, and taking over the sockets that it opened.

Owns the protocols of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3). Where systemd did not start us,
everything here does nothing. The variables are taken out of the environment, so that no child believes they
are meant for it. Imports nothing of ours.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import MutableMapping

_log = logging.getLogger(__name__)

_FIRST_FD = 3
_SEND_LIMIT_S = 1.0


class Notifier:
    """The way to systemd's notification socket, closed where there is none."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address = _socket_address(environ.pop("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(environ)
        """Seconds within which systemd wants a sign of life; None where it does not."""

    def ready(self, status: str = "") -> None:
        """Tell that everything is up, after the start and after each reload."""
        self._send("READY=1", status)

    def reloading(self) -> None:
        """Tell that a reload began; `ready` has to follow, also when the reload is refused."""
        # systemd tells by the time which READY=1 belongs to it (sd_notify(3), Type=notify-reload).
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str = "") -> None:
        """Tell that the end began."""
        self._send("STOPPING=1", status)

    def status(self, text: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send("", text)

    async def watch(self) -> None:
        """Give a sign of life twice in every watchdog interval, until cancelled; returns where none is wanted.

        It comes from the event loop itself: a loop that hangs is a program that systemd has to restart.
        """
        if self.watchdog_s is None or self._address is None:
            return
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def _send(self, state: str, status: str = "") -> None:
        if self._address is None:
            return
        told = " ".join(status.split())  # a newline would begin another assignment
        lines = [state] * bool(state) + [f"STATUS={told}"] * bool(told)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(_SEND_LIMIT_S)
                sock.connect(self._address)
                sock.sendall("\n".join(lines).encode())
        except OSError as exc:
            _log.warning("systemd could not be told %s: %s", state or "the status", exc)


def listening_sockets(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """Return the listening sockets that systemd handed over, by `FileDescriptorName=`; empty where there are none.

    Takes them once: a second call returns nothing. They are non-blocking, and no child inherits them.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    environ.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        fd = _FIRST_FD + index
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        found.setdefault(name, []).append(sock)
    return found


def _socket_address(value: str) -> str | None:
    if value.startswith("@"):  # an abstract name begins with a zero byte, unix(7)
        return "\0" + value[1:]
    return value if value.startswith("/") else None


def _watchdog_s(environ: MutableMapping[str, str]) -> float | None:
    pid, limit_us = environ.pop("WATCHDOG_PID", ""), environ.pop("WATCHDOG_USEC", "")
    if not limit_us.isdigit() or int(limit_us) == 0 or pid not in {"", str(os.getpid())}:
        return None
    return int(limit_us) / 1_000_000
