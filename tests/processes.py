"""Looking at real processes from the outside; for the tests of the process runtime."""

import errno
import gc
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from waiting import block_until

from autostart.runtime.process import ProcessRuntime

_BLOCK = 256


def _own_ports() -> Iterator[int]:
    """Claim a block of ports for this process, for as long as it lives: an abstract socket says so to the others."""
    for first in range(10_240, 22_000 - _BLOCK, _BLOCK):
        claim = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            claim.bind(f"\0autostart-test-ports-{first}")
            claim.detach()
            return itertools.cycle(range(first, first + _BLOCK))
        claim.close()
    raise OSError(errno.EADDRINUSE, "every block of ports has its tests")


_ports = _own_ports()
"""Below those that the kernel gives to whoever connects (32768), or one of them might be in use when it is bound,
and a probe of it be connected to itself."""


def free_port() -> int:
    """Return a port that nobody listens on, and that nobody else is given or takes by chance."""
    for port in itertools.islice(_ports, _BLOCK):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(errno.EADDRINUSE, "no port is free")


def status(pid: int) -> tuple[str, int] | None:
    """Return state letter and parent of a process; None where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent, _ = stat[stat.rindex(")") + 2 :].split(" ", 2)
    return state, int(parent)


def lives(pid: int) -> bool:
    """Say whether a process exists and is more than a zombie."""
    found = status(pid)
    return found is not None and found[0] not in "ZX"


def children(parent: int | None = None) -> set[int]:
    """Return the children of a process (of ours), zombies too."""
    parent = os.getpid() if parent is None else parent
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {pid for pid in pids if (found := status(pid)) and found[1] == parent}


def open_fds() -> int:
    """Return how many file descriptors we have open, but for those that only wait for the garbage collector."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def pids_in(file: Path, count: int) -> list[int]:
    """Wait until a service has written `count` process ids to `file`, and return them."""

    def pids() -> list[int]:
        return [int(word) for word in file.read_text().split("\n")[:-1]] if file.exists() else []

    block_until(lambda: len(pids()) >= count, lambda: f"{file} has {pids()}")
    return pids()


def shell(script: str, port: int | None = None, **options) -> ProcessRuntime:
    """Return a runtime for a shell script; `cwd`, `env` and further options as ProcessRuntime takes them."""
    cwd, env = options.pop("cwd", None), options.pop("env", {})
    return ProcessRuntime(["/bin/sh", "-c", script], cwd, env, port or free_port(), **options)
