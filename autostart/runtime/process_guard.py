"""A small shell beside each started process, which ends it should autostart be killed.

Owns the guard's script and its pipe. Imports nothing of ours.
"""

import contextlib
import os
import subprocess

_POLL_S = 0.1
_EXIT_LIMIT_S = 1.0

_SCRIPT = """
trap '' HUP INT QUIT TERM
read -r group || exit 0
read -r released && exit 0
kill -TERM "-$group" || exit 0
left=$1
while [ "$left" -gt 0 ]; do
  sleep 0.1 || sleep 1
  kill -0 "-$group" || exit 0
  left=$((left - 1))
done
kill -KILL "-$group"
"""
"""Two lines come through the pipe: the process group to watch over, then the word that all is well.

The pipe ending without the second means that its only writer, autostart, is gone. Once the second was read
nothing is ever killed, so the number of the group may be used again. (`kill -TERM -N` without `--` is what
dash, bash and busybox all understand.)
"""


class Guard:
    """Kills a process group when autostart dies without having said `release`, SIGKILL included.

    It is in a session of its own and ignores what a terminal or a service manager sends to everybody.
    Nothing happens should the guard itself be killed. What remains unguarded is the moment (some 100 µs)
    between the start of the process and `watch_over`.

    All methods block, for milliseconds, and belong in a thread.
    """

    def __init__(self, grace_s: float) -> None:
        """Start the shell; raises OSError where it cannot. `grace_s`: from its SIGTERM to its SIGKILL."""
        reading, self._writing = os.pipe()  # neither end is inherited, by whatever else we start
        try:
            self._shell = subprocess.Popen(  # noqa: S603 — a script of our own
                ["/bin/sh", "-c", _SCRIPT, "autostart-guard", str(max(1, round(grace_s / _POLL_S)))],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                start_new_session=True,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    @property
    def pid(self) -> int:
        """The shell's process id."""
        return self._shell.pid

    def watch_over(self, group: int) -> None:
        """Name the process group to end."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writing, b"%d\n" % group)

    def release(self) -> None:
        """End the guard; it kills nothing any more. Call it while the group's number cannot be reused yet."""
        writing, self._writing = self._writing, -1
        if writing < 0:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, b"\nreleased\n")  # an end of the first line too, if no group was ever named
        os.close(writing)
        try:
            self._shell.wait(_EXIT_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()
