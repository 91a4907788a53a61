"""systemd's protocols, spoken to a stand-in socket; what was handed over is taken in a real child process."""

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from autostart.notify import Notifier, listening_sockets


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """The receiving end: the address for NOTIFY_SOCKET, and a function that returns the next message."""
    path = str(tmp_path / "notify")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(path if request.param == "path" else f"\0autostart{path}")
        sock.settimeout(30)
        address = path if request.param == "path" else f"@autostart{path}"
        yield address, lambda: sock.recv(4096).decode()


def test_life_of_the_program_is_told(systemd):
    address, received = systemd
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("2 services")
    assert received() == "READY=1\nSTATUS=2 services"
    notifier.status("busy")
    assert received() == "STATUS=busy"
    notifier.stopping()
    assert received() == "STOPPING=1"


def test_reload_carries_the_time_on_the_monotonic_clock(systemd):
    address, received = systemd
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier({"NOTIFY_SOCKET": address}).reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    state, _, usec = received().partition("\nMONOTONIC_USEC=")
    assert state == "RELOADING=1"
    assert before <= int(usec) <= after


def test_status_cannot_carry_another_assignment(systemd):
    address, received = systemd
    Notifier({"NOTIFY_SOCKET": address}).status("broken\nREADY=1")
    assert received() == "STATUS=broken READY=1"


def test_watchdog_gets_signs_of_life(systemd):
    address, received = systemd

    async def body():
        notifier = Notifier(
            {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
        )
        assert notifier.watchdog_s == 0.02
        watching = asyncio.create_task(notifier.watch())
        try:
            return [await asyncio.to_thread(received) for _ in range(3)]
        finally:
            watching.cancel()

    assert asyncio.run(body()) == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}],
    ids=["nothing", "for another process", "zero", "not a number"],
)
def test_watchdog_that_nobody_wants_ends_at_once(environ):
    notifier = Notifier(environ | {"NOTIFY_SOCKET": "/nowhere"})
    assert notifier.watchdog_s is None
    asyncio.run(asyncio.wait_for(notifier.watch(), 30))


def test_variables_are_not_left_for_children():
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    environ |= {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "web"}
    Notifier(environ)
    assert listening_sockets(environ) == {}
    assert environ == {"PATH": "/bin"}


def test_without_systemd_nothing_happens():
    notifier = Notifier({})
    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    assert listening_sockets({}) == {}


def test_systemd_that_has_gone_is_no_failure(tmp_path, caplog):
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "systemd could not be told READY=1" in caplog.text


_TAKE = """
import os, socket, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from autostart.notify import listening_sockets
found = listening_sockets()
assert "LISTEN_FDS" not in os.environ
for name, sockets in found.items():
    for sock in sockets:
        assert not sock.get_inheritable() and not sock.getblocking()
        print(name, sock.getsockname()[1])
        sock.close()
"""


def take(names: str | None, *sockets: socket.socket) -> list[str]:
    """What a process gets that is started as systemd starts one: sockets from descriptor 3 on."""
    environ = {"LISTEN_FDS": str(len(sockets)), **({} if names is None else {"LISTEN_FDNAMES": names})}
    # Above all others first, so that moving one to 3, 4, … overwrites none that is still needed.
    high = [fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 100) for sock in sockets]
    moved = "; ".join(f"os.dup2({fd}, {3 + index}); os.close({fd})" for index, fd in enumerate(high))
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import os; {moved}\n{_TAKE}"],
            env=os.environ | environ,
            pass_fds=high,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        for fd in high:
            os.close(fd)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_sockets_are_taken_over_by_name():
    with (
        socket.create_server(("127.0.0.1", 0)) as web,
        socket.create_server(("127.0.0.1", 0)) as second,
        socket.create_server(("127.0.0.1", 0)) as admin,
    ):
        ports = [sock.getsockname()[1] for sock in (web, second, admin)]
        assert take("web:web:admin", web, second, admin) == [
            f"web {ports[0]}",
            f"web {ports[1]}",
            f"admin {ports[2]}",
        ]


def test_sockets_without_names_are_called_unknown():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert take(None, sock) == [f"unknown {sock.getsockname()[1]}"]
