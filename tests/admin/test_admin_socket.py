"""The private socket: who may open it, what it replaces and what it leaves alone."""

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import sys

import pytest

from autostart.admin import listen
from autostart.admin.listen import Claim, SocketUnusable, open_private


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


def test_claim_is_one_process_s_until_it_lets_go(tmp_path):
    path = tmp_path / "run" / "admin.sock"
    claim = Claim(path)
    with pytest.raises(SocketUnusable, match="another autostart"):
        Claim(path)
    claim.release()
    Claim(path).release()
    assert list(path.parent.iterdir()) == []


def test_claim_of_a_dead_process_is_nobody_s(tmp_path):
    path = tmp_path / "admin.sock"
    program = "import os, sys; from pathlib import Path; from autostart.admin.listen import Claim; "
    subprocess.run(
        [sys.executable, "-c", f"{program} Claim(Path(sys.argv[1])); os._exit(0)", path], check=True
    )
    assert path.with_name(".admin.sock.lock").exists()
    Claim(path).release()


def test_claim_is_refused_where_somebody_answers_and_is_not_kept(tmp_path):
    path = tmp_path / "admin.sock"
    first = open_private(path)
    with pytest.raises(SocketUnusable, match="another autostart answers on it"):
        Claim(path)
    close(path, first)
    Claim(path).release()


_STARTER = """
import sys
from pathlib import Path
from autostart.admin.listen import Claim, SocketUnusable
sys.stdin.readline()
try:
    claim = Claim(Path(sys.argv[1]))
    print("mine", flush=True)
    sys.stdin.readline()
except SocketUnusable:
    print("taken", flush=True)
"""


def test_of_many_that_start_together_one_has_it(tmp_path):
    path = tmp_path / "admin.sock"
    open_private(path).close()  # stale: each of them would replace it
    with contextlib.ExitStack() as stack:
        starters = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _STARTER, path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                )
            )
            for _ in range(5)
        ]
        for starter in starters:
            starter.stdin.write("go\n")
        told = sorted(starter.stdout.readline().strip() for starter in starters)
        for starter in starters:
            starter.stdin.close()
    assert told == ["mine", "taken", "taken", "taken", "taken"]


_CONTENDER = """
import os, sys
from pathlib import Path
from autostart.admin.listen import Claim, SocketUnusable
path, inside, had, tries = Path(sys.argv[1]), Path(sys.argv[1] + ".inside"), 0, 0
while had < 300 and tries < 1_000_000:
    tries += 1
    try:
        claim = Claim(path)
    except SocketUnusable:
        continue
    inside.touch(exist_ok=False)  # raises where another has the claim too
    inside.unlink()
    claim.release()
    had += 1
"""


def test_claim_that_changes_hands_is_never_held_by_two(tmp_path):
    path = tmp_path / "admin.sock"
    contenders = [subprocess.Popen([sys.executable, "-c", _CONTENDER, path]) for _ in range(4)]
    assert [contender.wait(60) for contender in contenders] == [0, 0, 0, 0]


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
