"""Open the private unix socket of the local API, and take it away again.

Knows nothing of HTTP. Whoever may open the socket may start and stop services: it is never reachable by others,
not even for a moment, and never takes the place of one that somebody answers on.
"""

import contextlib
import os
import socket
import stat
from pathlib import Path

_CONNECT_LIMIT_S = 1.0
_BACKLOG = 64


class SocketUnusable(OSError):
    """The path of the admin socket cannot be used; `path` is it."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"admin socket {path}: {reason}")


def open_private(path: Path) -> socket.socket:
    """Return a listening unix socket at `path` that only our own user may open (mode 0600).

    A socket that a dead process left behind is replaced. Raises SocketUnusable where another process answers
    on it, where something else than a socket is there, and where the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_if_taken(path)
        return _bind(path)
    except SocketUnusable:
        raise
    except OSError as exc:
        raise SocketUnusable(path, exc.strerror or str(exc)) from exc


def remove(path: Path, identity: tuple[int, int]) -> None:
    """Remove the socket from `path`, unless another one has taken its place there since."""
    with contextlib.suppress(OSError):
        if identify(path) == identity:
            path.unlink()


def identify(path: Path) -> tuple[int, int]:
    """Return what tells one file at `path` from the next: device and inode."""
    found = path.lstat()
    return found.st_dev, found.st_ino


def _refuse_if_taken(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketUnusable(
            path, "there is something that is not a socket; remove it, or change admin.socket"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_LIMIT_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as exc:  # a full backlog, say: somebody listens all the same
            raise SocketUnusable(
                path, f"in use by something that does not answer ({exc.strerror or exc})"
            ) from exc
    raise SocketUnusable(path, "another autostart answers on it; stop that one first")


def _bind(path: Path) -> socket.socket:
    """Bind beside `path` and move into place, so that the name never leads to a socket that is not ready."""
    beside = path.with_name(f".{os.getpid()}")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        beside.unlink(missing_ok=True)
        umask = os.umask(0o177)  # a chmod afterwards would leave a gap
        try:
            sock.bind(str(beside))
        finally:
            os.umask(umask)
        sock.listen(_BACKLOG)
        beside.replace(path)
    except BaseException:
        sock.close()
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    return sock
