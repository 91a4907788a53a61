"""The private socket: who may open it, what it replaces and what it leaves alone."""

import asyncio
import os
import socket
import stat
import subprocess
import sys

import pytest

from autostart.admin import listen
from autostart.admin.listen import SocketUnusable, open_private


def close(path, sock):
    listen.remove(path, listen.identify(path))
    sock.close()


def test_only_our_own_user_may_open_it_whatever_the_umask(tmp_path):
    path = tmp_path / "admin.sock"
    before = os.umask(0)
    try:
        sock = open_private(path)
        assert os.umask(0) == 0, "the umask is put back"
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    close(path, sock)


def test_missing_directory_is_made(tmp_path):
    path = tmp_path / "run" / "autostart" / "admin.sock"
    close(path, open_private(path))


def test_socket_of_a_dead_process_is_replaced(tmp_path):
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    sock = open_private(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close(path, sock)


def test_socket_that_somebody_answers_on_is_left_alone(tmp_path):
    path = tmp_path / "admin.sock"
    first = open_private(path)
    with pytest.raises(SocketUnusable, match="another autostart answers on it"):
        open_private(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close(path, first)


def test_file_that_is_no_socket_is_never_removed(tmp_path):
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(SocketUnusable, match="not a socket"):
        open_private(path)
    assert path.read_text() == "precious"


def test_place_that_cannot_be_used_is_named_in_the_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SocketUnusable, match=str(tmp_path / "file" / "admin.sock")):
        open_private(tmp_path / "file" / "admin.sock")


def test_path_too_long_for_a_socket_is_a_clear_error(tmp_path):
    with pytest.raises(SocketUnusable, match="too long"):
        open_private(tmp_path / ("x" * 120) / "admin.sock")


_LOOK = """
import os, select, sys
print("looking", flush=True)
gaps = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    gaps += sum(not os.path.lexists(sys.argv[1]) for _ in range(100))
print(gaps)
"""


def test_name_is_never_gone_while_a_stale_socket_is_replaced(tmp_path):
    path = tmp_path / "admin.sock"
    open_private(path).close()  # leaves a stale one, as do those below
    with subprocess.Popen(
        [sys.executable, "-c", _LOOK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as watcher:
        assert watcher.stdout.readline() == "looking\n"
        for _ in range(500):
            open_private(path).close()
        assert watcher.communicate("done\n", timeout=30)[0] == "0\n"


def test_socket_of_a_successor_is_not_removed(tmp_path):
    path = tmp_path / "admin.sock"
    first = open_private(path)
    identity = listen.identify(path)
    path.unlink()
    second = open_private(path)
    listen.remove(path, identity)
    first.close()
    assert path.is_socket()
    close(path, second)
    assert not path.exists()


def test_server_removes_its_socket_when_it_closes(tmp_path):
    from stand import standing

    async def body():
        async with standing(tmp_path, {}) as stand:
            assert stand.socket.is_socket()
        assert not stand.socket.exists()

    asyncio.run(body())
