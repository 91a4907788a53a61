"""Listen on the addresses of the configuration. Knows aiohttp's sites, and nothing of ours."""

import errno
import os
import socket

from aiohttp import web

_CONNECT_LIMIT_S = 1.0
_BACKLOG = 2048


async def listen(runner: web.BaseRunner, address: str) -> web.BaseSite:
    """Serve `runner` on `127.0.0.1:8890`, `[::1]:8890` or `unix:/path`, and return the site.

    A socket that a dead process left at the path is replaced. Raises OSError, which names the address.
    """
    try:
        site = _site(runner, address)
        await site.start()
    except OSError as exc:
        reason = os.strerror(exc.errno).lower() if exc.errno else str(exc)
        raise OSError(f"{address}: {reason}") from exc
    return site


def _site(runner: web.BaseRunner, address: str) -> web.BaseSite:
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if _somebody_listens(path):  # the loop would take the path from them
            raise OSError(errno.EADDRINUSE, path)
        return web.UnixSite(runner, path, backlog=_BACKLOG)
    host, _, port = address.rpartition(":")
    return web.TCPSite(runner, host.strip("[]"), int(port), backlog=_BACKLOG)


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_LIMIT_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except TimeoutError:  # a full backlog: they do, but are slow
            return True
    return True
