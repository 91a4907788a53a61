"""One started process with its whole process group: its start, its output, its end.

Owns the process, its guard, its pipes and everything that ends with it. Imports nothing of ours but its
neighbours and `errors`. Linux only (pidfd, /proc).
"""

import asyncio
import contextlib
import errno
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from math import inf
from pathlib import Path

from autostart.errors import CommandNotFound, RuntimeFailure
from autostart.runtime.output_tail import OutputTail
from autostart.runtime.process_guard import Guard
from autostart.runtime.process_table import cpu_seconds, live_members

log = logging.getLogger(__name__)

_CHUNK_BYTES = 65536
_LAST_WORDS_BYTES = 4 * _CHUNK_BYTES  # a pipe holds one chunk; a survivor may go on writing for ever
_REAP_LIMIT_S = 1.0
_SCAN_PAUSE_S = 0.002
_SCAN_PAUSE_MOST_S = 0.25
_EXIT_CODE_UNKNOWN = 255  # as in asyncio: somebody else reaped it, or SIGCHLD is ignored
_MACHINE_IS_FULL = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, slots=True)
class Spawned:
    """What `spawn` started: the leader of a new session and group, and a pidfd that tells of its end."""

    leader: subprocess.Popen[bytes]
    pidfd: int
    guard: Guard | None


def spawn(command: Sequence[str], cwd: Path | None, env: Mapping[str, str], orphan_grace_s: float) -> Spawned:
    """Start `command` in a session of its own, watched over by a guard. Blocks until it is executed.

    stdin is /dev/null, stdout and stderr are one pipe, and nothing else is inherited. Raises CommandNotFound,
    or RuntimeFailure where the machine has no room.
    """
    try:
        guard = Guard(orphan_grace_s)
    except OSError as exc:
        log.warning("a process runs without a guard", extra={"reason": str(exc)})
        guard = None
    try:
        leader = subprocess.Popen(  # noqa: S603 — what the configuration says, and no shell
            command,
            bufsize=0,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as exc:
        if guard is not None:
            guard.release()
        raise _why_not(command, cwd, env, exc) from exc
    if guard is not None:
        guard.watch_over(leader.pid)
    assert leader.stdout is not None
    try:
        pidfd = os.pidfd_open(leader.pid)
    except OSError as exc:
        discard(Spawned(leader, -1, guard))
        raise RuntimeFailure(
            f"cannot watch a process: {exc.strerror} (Linux 5.3 or newer is needed)"
        ) from exc
    os.set_blocking(leader.stdout.fileno(), False)
    return Spawned(leader, pidfd, guard)


def discard(spawned: Spawned) -> None:
    """End what was started and let go of it at once. Blocks, for milliseconds."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(spawned.leader.pid, signal.SIGKILL)
    _retire(spawned)
    if spawned.leader.stdout is not None:
        spawned.leader.stdout.close()
    if spawned.pidfd >= 0:
        os.close(spawned.pidfd)


def _retire(spawned: Spawned) -> None:
    """Dismiss the guard, then reap the leader; in this order, for reaping frees the group's number."""
    if spawned.guard is not None:
        spawned.guard.release()
    with contextlib.suppress(subprocess.TimeoutExpired):
        spawned.leader.wait(_REAP_LIMIT_S)


def _why_not(
    command: Sequence[str], cwd: Path | None, env: Mapping[str, str], exc: OSError | ValueError
) -> RuntimeFailure:
    """Say in words why `command` could not be executed."""
    program = command[0]
    if isinstance(exc, ValueError):  # a NUL byte, or "=" in the name of a variable
        return CommandNotFound(program, str(exc))
    reason = exc.strerror or str(exc)
    if exc.errno in _MACHINE_IS_FULL:
        return RuntimeFailure(
            f"cannot run {program!r}: {reason}", hint="the machine or a limit of it is full"
        )
    if cwd is not None and not cwd.is_dir():
        there = "is not a directory" if cwd.exists() else "does not exist"
        return CommandNotFound(program, f"its working directory {cwd} {there}")
    if exc.filename == cwd:
        return CommandNotFound(program, f"its working directory {cwd} cannot be entered: {reason}")
    if exc.errno != errno.ENOENT:
        return CommandNotFound(program, f"it is there, but cannot be executed: {reason}")
    if "/" in program:
        exists = Path(cwd or ".", program).exists()
    else:
        exists = shutil.which(program, path=env.get("PATH")) is not None
    if exists:
        return CommandNotFound(program, "the interpreter that it names is not there")
    return CommandNotFound(program, "no such program" + ("" if "/" in program else " on the PATH"))


class ProcessGroup:
    """A process that runs, or ends, with all that it started in its group.

    | it is         | exit_code | ending           | gone  |
    |---------------|-----------|------------------|-------|
    | running       | None      | False            | unset |
    | told to end   | None      | True             | unset |
    | leader ended  | number    | whether told to  | unset |
    | gone          | number    |                  | set   |

    The leader stays unreaped until nobody of its group lives: so long the kernel gives the group's number to
    nobody else, and no signal of ours can hit a stranger.
    """

    def __init__(
        self, spawned: Spawned, tail: OutputTail, executor: Executor, on_end: Callable[["ProcessGroup"], None]
    ) -> None:
        """Watch over `spawned`; `on_end` is called on the event loop as soon as the leader has ended."""
        assert spawned.leader.stdout is not None
        self.pid = spawned.leader.pid
        self.started_at_s = time.time()
        self.exit_code: int | None = None
        self.ending = False
        self.killed = False
        """We have sent SIGKILL."""
        self.gone = asyncio.Event()
        self._spawned = spawned
        self._tail = tail
        self._executor = executor
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._output: int | None = spawned.leader.stdout.fileno()
        self._leader_ended = asyncio.Event()
        self._kill_at_s = inf
        self._kill_timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._output, self.read_output, _CHUNK_BYTES)
        self._loop.add_reader(spawned.pidfd, self._notice_end)
        self._seen_out = self._loop.create_task(self._see_out(), name=f"see out process {self.pid}")
        self._seen_out.add_done_callback(self._let_go)

    def __repr__(self) -> str:
        state = "gone" if self.gone.is_set() else "ending" if self.ending else "running"
        return f"<ProcessGroup {self.pid} {state} exit_code={self.exit_code}>"

    @property
    def kill_in_s(self) -> float:
        """Seconds until those who have not ended are killed; 0 where that has happened."""
        return 0.0 if self.killed else max(0.0, self._kill_at_s - self._loop.time())

    def peek_exit_code(self) -> int | None:
        """Look whether the leader has ended, be it that nobody was told so far; None while it runs."""
        if self.exit_code is not None:
            return self.exit_code
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return _EXIT_CODE_UNKNOWN
        if found is None:
            return None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def end(self, grace_s: float) -> None:
        """Ask the whole group to end, and kill whoever is left after `grace_s`. Wait for `gone` afterwards.

        Asked again, the earlier moment counts.
        """
        self._notice_end()  # if it ended by itself just now, that is what is told
        if self.gone.is_set() or self.killed:
            return
        if not self.ending:
            self.ending = True
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # whoever is stopped would not hear the first
        kill_at_s = self._loop.time() + grace_s
        if kill_at_s < self._kill_at_s:
            self._kill_at_s = kill_at_s
            self._disarm()
            self._kill_timer = self._loop.call_at(kill_at_s, self._kill)

    def read_output(self, most_bytes: int = _LAST_WORDS_BYTES) -> None:
        """Take what has been printed so far, without waiting."""
        while most_bytes > 0 and self._output is not None:
            try:
                data = os.read(self._output, _CHUNK_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._close_output()
                return
            self._tail.feed(data)
            most_bytes -= len(data)

    async def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU seconds used so far, by process; see `process_table.cpu_seconds`."""
        return await self._loop.run_in_executor(self._executor, cpu_seconds, self.pid)

    def _signal(self, number: signal.Signals) -> None:
        assert not self.gone.is_set()  # the number of the group may be somebody else's by then
        with contextlib.suppress(ProcessLookupError, PermissionError):  # whoever survives is told of
            os.killpg(self.pid, number)

    def _kill(self) -> None:
        self.killed = True
        self._disarm()
        self._signal(signal.SIGKILL)

    def _disarm(self) -> None:
        if self._kill_timer is not None:
            self._kill_timer.cancel()
            self._kill_timer = None

    def _notice_end(self) -> None:
        exit_code = self.peek_exit_code()
        if exit_code is None or self.exit_code is not None:
            return
        self._loop.remove_reader(self._spawned.pidfd)
        self.read_output()
        self.exit_code = exit_code
        self._on_end(self)
        if not self.ending:
            self._kill()
        self._leader_ended.set()

    async def _see_out(self) -> None:
        """Wait until nobody of the group lives, and reap."""
        await self._leader_ended.wait()
        pause_s = _SCAN_PAUSE_S
        while await self._loop.run_in_executor(self._executor, live_members, self.pid):
            if self.killed:
                self._signal(signal.SIGKILL)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _SCAN_PAUSE_MOST_S)
        await self._loop.run_in_executor(self._executor, _retire, self._spawned)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        """Close what is open; a callback, for a task that is cancelled before its first step has no `finally`."""
        if task.cancelled() or task.exception() is not None:  # the event loop ends before its owner closed us
            self._kill()
            _retire(self._spawned)
            self.exit_code = self._spawned.leader.returncode if self.exit_code is None else self.exit_code
        self._disarm()
        self._loop.remove_reader(self._spawned.pidfd)
        self._close_output()
        os.close(self._spawned.pidfd)
        self.gone.set()

    def _close_output(self) -> None:
        if self._output is not None:
            self._loop.remove_reader(self._output)
            self._output = None
            assert self._spawned.leader.stdout is not None
            self._spawned.leader.stdout.close()
