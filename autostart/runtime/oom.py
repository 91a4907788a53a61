"""Whether the kernel killed something of ours for want of memory. Imports nothing of ours."""

from pathlib import Path


def oom_kill_count(
    own_cgroup: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Return how many processes of our own cgroup the kernel has killed so far; None where it does not tell.

    A started process shares our cgroup. Only the unified hierarchy tells (memory.events, kernel
    Documentation/admin-guide/cgroup-v2.rst); it counts kills by the cgroup's limit and by the machine's.
    """
    try:
        for line in own_cgroup.read_text().splitlines():
            hierarchy, _, path = line.split(":", 2)
            if hierarchy == "0":
                events = (root / path.lstrip("/") / "memory.events").read_text()
                return int(dict(entry.split() for entry in events.splitlines())["oom_kill"])
    except (OSError, ValueError, KeyError):
        pass
    return None
