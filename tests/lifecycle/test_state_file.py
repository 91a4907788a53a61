"""The state file: idle clocks survive, and nothing about the file can stop a service."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import LIMIT_S, until

from autostart.lifecycle.events import Held, Phases, StartSucceeded, Used
from autostart.lifecycle.state_file import StateFile


def keep(path, *events):
    async def body():
        state = StateFile(path)
        for event in events:
            state.on_event(event)
        await state.close()

    asyncio.run(body())


def test_idle_clocks_are_read_back(tmp_path):
    path = tmp_path / "deep" / "state.json"
    keep(path, Used("a.test", 123.5), Used("b.test", 7.0), Used("a.test", 124.5))
    state = StateFile(path)
    assert (state.last_used_s("a.test"), state.last_used_s("b.test"), state.last_used_s("c.test")) == (
        124.5,
        7.0,
        None,
    )


def test_new_start_forgets_the_use_before_it(tmp_path):
    path = tmp_path / "state.json"
    keep(path, Used("a.test", 1.0), StartSucceeded("a.test", "curl", False, Phases(0, 0), 0))
    assert StateFile(path).last_used_s("a.test") is None


def test_half_a_file_costs_only_the_clocks(tmp_path, caplog):
    path = tmp_path / "state.json"
    for text in (
        '{"version": 1, "lastUsed": {"a',
        "[]",
        '{"lastUsed": 3}',
        "",
        "\x00",
        "[" * 100_000,
        '{"lastUsed": {"a.test": NaN}}',
        '{"lastUsed": {"a.test": Infinity}}',
        '{"lastUsed": {"a.test": 1' + "0" * 400 + "}}",
        '{"lastUsed": {"a.test": -1}}',
        '{"lastUsed": {"a.test": true}}',
        '{"lastUsed": {"a.test": 1}, "heldUntil": {"a.test": NaN}}',
    ):
        path.write_text(text)
        assert StateFile(path).last_used_s("a.test") is None
        assert "idle clocks start anew" in caplog.text
        caplog.clear()


def test_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "state.json"
    keep(path, Used("a.test", 1.0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
    kept = {"version": 1, "lastUsed": {"a.test": 1.0}, "heldUntil": {}}
    assert json.loads(path.read_text()) == kept


def test_holds_are_read_back_until_they_end_or_are_released(tmp_path):
    path, end_s = tmp_path / "state.json", time.time() + 3600
    keep(path, Held("a.test", end_s), Held("b.test", end_s), Held("b.test", None), Held("c.test", 1.0))
    state = StateFile(path)
    assert [state.held_until_s(host) for host in ("a.test", "b.test", "c.test")] == [end_s, None, None]


def test_file_from_before_holds_were_kept_is_read(tmp_path):
    path = tmp_path / "state.json"
    path.write_text('{"version": 1, "lastUsed": {"a.test": 7}}')
    assert StateFile(path).last_used_s("a.test") == 7


def test_use_in_the_future_counts_as_now(tmp_path):
    path = tmp_path / "state.json"
    keep(path, Used("a.test", time.time() + 1e6))
    assert StateFile(path).last_used_s("a.test") <= time.time()


def test_without_a_file_the_clocks_are_kept_in_memory():
    async def body():
        state = StateFile(None)
        state.on_event(Used("a.test", 1.0))
        state.on_event(Held("a.test", 2.0))
        await state.close()
        assert (state.last_used_s("a.test"), state.held_until_s("a.test")) == (1.0, 2.0)

    asyncio.run(body())


@contextmanager
def full_disk():
    """Let no file of ours grow beyond 10 bytes: a write fails half-way, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("where", ["under-a-file", "read-only", "over-a-directory"])
def test_file_that_cannot_be_written_is_told_once(tmp_path, caplog, where):
    (tmp_path / "file").write_text("")
    (tmp_path / "directory").mkdir()
    paths = {
        "under-a-file": tmp_path / "file/state.json",
        "read-only": Path("/proc/state.json"),
        "over-a-directory": tmp_path / "directory",
    }

    async def body():
        state = StateFile(paths[where])
        caplog.clear()
        for used_s in (1.0, 2.0):
            state.on_event(Used("a.test", used_s))
            await state.close()

    asyncio.run(body())
    assert caplog.text.count("cannot be written") == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["directory", "file"]


def test_full_disk_keeps_the_old_file_and_the_next_write_after_it_is_good(tmp_path, caplog):
    path = tmp_path / "state.json"
    keep(path, Used("a.test", 1.0))

    async def body():
        state = StateFile(path)
        with full_disk():
            state.on_event(Used("a.test", 2.0))
            await state.close()
        assert StateFile(path).last_used_s("a.test") == 1.0
        assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]
        state.on_event(Used("b.test", 3.0))
        await state.close()

    asyncio.run(body())
    assert caplog.text.count("cannot be written") == 1
    assert StateFile(path).last_used_s("a.test") == 2.0


WRITE_AND_BE_KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from autostart.lifecycle.state_file import replace_file, StateFile

path = Path(sys.argv[1])
for _ in range(100):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        number = 0
        while True:
            number += 1
            clocks = ",".join(f'"s{host}.test": {number}' for host in range(2000))
            replace_file(path, '{"version": 1, "lastUsed": {' + clocks + "}}")
    time.sleep(random.uniform(0.0005, 0.01))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if path.exists():
        state = StateFile(path)
        assert state.last_used_s("s0.test") == state.last_used_s("s1999.test") > 0, "half a file"
assert path.exists()
left = {entry.name for entry in path.parent.iterdir()}
assert left <= {"state.json", ".state.json.new"}, left
replace_file(path, "{}")
assert [entry.name for entry in path.parent.iterdir()] == ["state.json"]
"""


def test_kill_in_the_middle_of_a_write_leaves_the_old_or_the_new_file_and_nothing_for_ever(tmp_path):
    """A hundred processes that do nothing but write are killed, each at a moment of its own."""
    command = [sys.executable, "-c", WRITE_AND_BE_KILLED, str(tmp_path / "state.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_link_in_its_place_is_replaced_and_what_it_led_to_is_not_touched(tmp_path):
    path, elsewhere = tmp_path / "state.json", tmp_path / "precious"
    elsewhere.write_text("mine")
    path.symlink_to(elsewhere)
    (tmp_path / ".state.json.new").symlink_to(elsewhere)
    keep(path, Used("a.test", 1.0))
    assert elsewhere.read_text() == "mine"
    assert not path.is_symlink()
    assert StateFile(path).last_used_s("a.test") == 1.0


def test_a_file_that_is_no_state_file_is_kept_beside(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"services": {}}')
    keep(path, Used("a.test", 1.0))
    assert (tmp_path / "config.json.bad").read_text() == '{"services": {}}'
    assert StateFile(path).last_used_s("a.test") == 1.0


def test_a_pipe_or_a_device_is_neither_read_nor_replaced(tmp_path, caplog):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    keep(path, Used("a.test", 1.0))
    assert path.is_fifo()
    assert "it is not a file" in caplog.text
    assert "cannot be written" in caplog.text


class HangingDisk:
    """A way to write that does not come back before `comes_back` is set."""

    def __init__(self) -> None:
        self.comes_back = threading.Event()
        self.texts: list[str] = []

    def replace(self, path: Path, text: str) -> None:
        self.texts.append(text)
        self.comes_back.wait(LIMIT_S)


def test_disk_that_hangs_does_not_keep_the_program_from_ending(tmp_path, caplog):
    disk = HangingDisk()

    async def body():
        state = StateFile(tmp_path / "state.json", replace=disk.replace)
        state.on_event(Used("a.test", 1.0))
        await state.close(limit_s=0.01)

    asyncio.run(body())
    assert "was not written within 0.01 s" in caplog.text
    writing = [thread.daemon for thread in threading.enumerate() if thread.name == "writing the state file"]
    assert writing == [True]
    disk.comes_back.set()


def test_without_a_thread_to_be_had_only_the_clocks_are_lost(tmp_path, caplog, monkeypatch):
    def start(_thread):
        raise RuntimeError("can't start new thread")

    async def body():
        state = StateFile(tmp_path / "state.json")
        state.on_event(Used("a.test", 1.0))
        await state.close()

    monkeypatch.setattr(threading.Thread, "start", start)
    asyncio.run(body())
    assert "cannot be written, idle clocks will not be kept: can't start new thread" in caplog.text


def test_disk_that_hangs_for_a_while_is_given_the_last_clocks_and_only_those(tmp_path):
    disk = HangingDisk()

    async def body():
        state = StateFile(tmp_path / "state.json", replace=disk.replace)
        state.on_event(Used("a.test", 1.0))
        closing = asyncio.create_task(state.close(LIMIT_S))
        await until(lambda: disk.texts)
        for used_s in range(2, 100):
            state.on_event(Used("a.test", used_s))
        assert len(asyncio.all_tasks()) <= 3  # this one, the closing and the one write
        disk.comes_back.set()
        await closing

    asyncio.run(body())
    assert [json.loads(text)["lastUsed"]["a.test"] for text in disk.texts] == [1, 99]
