"""Looking at real processes from the outside; for the tests of the process runtime."""

import os
import socket
import time
from pathlib import Path

from autostart.runtime.process import ProcessRuntime


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
    """Return how many file descriptors we have open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def pids_in(file: Path, count: int) -> list[int]:
    """Wait until a service has written `count` process ids to `file`, and return them."""
    deadline = time.monotonic() + 20
    while True:
        words = file.read_text().split("\n")[:-1] if file.exists() else []
        if len(words) >= count:
            return [int(word) for word in words]
        assert time.monotonic() < deadline, f"{file} has {words}"
        time.sleep(0.005)


def shell(script: str, port: int | None = None, **options) -> ProcessRuntime:
    """Return a runtime for a shell script; `cwd`, `env` and further options as ProcessRuntime takes them."""
    cwd, env = options.pop("cwd", None), options.pop("env", {})
    return ProcessRuntime(["/bin/sh", "-c", script], cwd, env, port or free_port(), **options)
