"""Open the private unix socket of the local API, and take it away again.

Knows nothing of HTTP. Whoever may open the socket may start and stop services: it is never reachable by others,
not even for a moment, and never takes the place of one that somebody answers on.
"""

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

_CONNECT_LIMIT_S = 1.0
_BACKLOG = 64


class SocketUnusable(OSError):
    """The path of the admin socket cannot be used; `path` is it."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"admin socket {path}: {reason}")


class Claim:
    """The right to serve at `path`: one process has it, from before it opens anything until it lets go.

    A look at who answers there is not enough: two that start together both find nobody. It is a lock on a file
    beside the socket, which the kernel takes from a process that dies.
    """

    def __init__(self, path: Path) -> None:
        """Raises SocketUnusable where another process has it, or answers at `path`."""
        self._file = path.with_name(f".{path.name}.lock")
        with _translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = _lock(self._file, path)
            try:
                _refuse_if_taken(path)
            except BaseException:
                self.release()
                raise

    def release(self) -> None:
        """Let the next one have it."""
        with contextlib.suppress(OSError):
            self._file.unlink()  # while it is locked: who waits for nothing cannot lose what it has
        os.close(self._fd)


def open_private(path: Path) -> socket.socket:
    """Return a listening unix socket at `path` that only our own user may open (mode 0600).

    A socket that a dead process left behind is replaced. Raises SocketUnusable where another process answers
    on it, where something else than a socket is there, and where the place cannot be written.
    """
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_if_taken(path)
        return _bind(path)


def remove(path: Path, identity: tuple[int, int]) -> None:
    """Remove the socket from `path`, unless another one has taken its place there since."""
    with contextlib.suppress(OSError):
        if identify(path) == identity:
            path.unlink()


def identify(path: Path) -> tuple[int, int]:
    """Return what tells one file at `path` from the next: device and inode."""
    found = path.lstat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except SocketUnusable:
        raise
    except OSError as exc:
        raise SocketUnusable(path, exc.strerror or str(exc)) from exc


def _lock(file: Path, path: Path) -> int:
    """Return the descriptor of `file`, locked. Raises SocketUnusable where somebody else has the lock."""
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(fd)
            if isinstance(exc, BlockingIOError):
                raise SocketUnusable(
                    path, "another autostart has it, or is about to; stop that one first"
                ) from None
            raise
        opened = os.fstat(fd)
        with contextlib.suppress(FileNotFoundError):
            if identify(file) == (opened.st_dev, opened.st_ino):
                return fd
        os.close(fd)  # its owner removed it between our open and our lock


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
