"""What /proc tells of the processes of a group. Linux only (proc(5)); every function blocks, for milliseconds.

Imports nothing of ours.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    state: bytes
    parent: int
    group: int
    session: int
    began: int
    """Ticks between the machine's start and its own: with the pid, it is one process and no later one."""
    ticks: int
    """CPU it has used, and those of its children that it has waited for."""


def live_members(group: int) -> list[int]:
    """Return the pids in a process group, without those that have ended and wait to be reaped."""
    return [
        process.pid
        for process in _processes()
        if process.group == group and process.state not in (b"Z", b"X")
    ]


def cpu_seconds(group: int) -> dict[str, float]:
    """Return the CPU seconds that each process of a group has used so far, its waited-for children's included.

    With those of its session and their descendants: who made a group of its own works for it still, while its
    parent lives.
    """
    table = {process.pid: process for process in _processes()}
    members = {pid for pid, process in table.items() if group in (process.group, process.session)}
    waiting = table.keys() - members
    while found := {pid for pid in waiting if table[pid].parent in members}:
        members |= found
        waiting -= found
    return {f"{pid}:{table[pid].began}": table[pid].ticks / _TICKS_A_SECOND for pid in members}


def _processes() -> Iterator[_Process]:
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            stat = (directory / "stat").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        # The name, in brackets, may hold anything; fields are counted from 3 on (proc(5)).
        fields = stat[stat.rindex(b")") + 2 :].split()
        state, parent, group, session = fields[:4]
        yield _Process(
            pid=int(directory.name),
            state=state,
            parent=int(parent),
            group=int(group),
            session=int(session),
            began=int(fields[19]),
            ticks=sum(map(int, fields[11:15])),
        )
