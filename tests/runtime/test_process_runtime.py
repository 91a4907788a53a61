"""What is particular to the process runtime: groups, guards, output, environment, and what it leaves behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from processes import children, free_port, lives, open_fds, pids_in, shell
from waiting import LIMIT_S

from autostart.errors import CommandNotFound, PortTaken, RuntimeFailure
from autostart.runtime.base import Change, RunState, RuntimeEvent, StopMethod
from autostart.runtime.process import ProcessRuntime

GRACE_S = 20.0  # far longer than any of these takes; a test that needs it to pass fails by its own deadline
SHORT_S = 0.2


def watched(runtime):
    told = []
    runtime.watch(told.append)
    return told


# --- ending ----------------------------------------------------------------------------------------


def test_a_process_that_ignores_the_request_to_end_is_killed(run, tmp_path):
    async def test():
        runtime = shell("trap '' TERM; echo $$ > pids; while :; do sleep 1; done", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        pids = pids_in(tmp_path / "pids", 1)
        await runtime.stop(StopMethod.STOP, SHORT_S)
        assert not any(map(lives, pids))
        assert RuntimeEvent(Change.DIED, exit_code=-9, by_hand=True) == told[-1]
        await runtime.close()

    run(test())


def test_a_stopped_process_hears_the_request_to_end(run, tmp_path):
    async def test():
        runtime = shell("trap 'exit 7' TERM; echo $$ > pids; while :; do sleep 0.02; done", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        os.kill(pids_in(tmp_path / "pids", 1)[0], signal.SIGSTOP)
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert 7 == told[-1].exit_code
        await runtime.close()

    run(test())


def test_a_stop_ends_everybody_in_the_group(run, tmp_path):
    async def test():
        runtime = shell("for n in 1 2 3; do sleep 1000 & echo $! >> pids; done; wait", cwd=tmp_path)
        await runtime.start()
        pids = pids_in(tmp_path / "pids", 3)
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert not any(map(lives, pids))
        await runtime.close()

    run(test())


WORKER = (
    "(trap 'sleep 0.3; echo finished > result; exit' TERM; echo $$ >> pids; while :; do sleep 0.02; done) &"
)


def test_a_worker_that_outlives_its_leader_keeps_its_grace(run, tmp_path):
    async def test():
        runtime = shell(f"{WORKER} wait", cwd=tmp_path)  # the leader itself dies of the signal at once
        await runtime.start()
        pids_in(tmp_path / "pids", 1)
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert "finished\n" == (tmp_path / "result").read_text()
        await runtime.close()

    run(test())


def test_a_worker_that_outlives_its_leader_is_killed_after_the_grace(run, tmp_path):
    async def test():
        runtime = shell("(trap '' TERM; sh -c 'echo $$ > pids; exec sleep 1000') & wait", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        (worker,) = pids_in(tmp_path / "pids", 1)
        await runtime.stop(StopMethod.STOP, SHORT_S)
        assert not lives(worker)
        assert RuntimeEvent(Change.DIED, exit_code=-15, by_hand=True) == told[-1]
        await runtime.close()

    run(test())


def test_workers_of_a_leader_that_dies_are_killed(run, tmp_path, eventually):
    async def test():
        runtime = shell("trap '' TERM; sleep 1000 & echo $! > pids; exit 4", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        (worker,) = pids_in(tmp_path / "pids", 1)
        await eventually(lambda: not lives(worker))
        await eventually(lambda: RuntimeEvent(Change.DIED, exit_code=4) in told, told)
        await runtime.close()

    run(test())


def test_a_second_stop_with_less_grace_is_heeded(run, tmp_path):
    async def test():
        runtime = shell("trap '' TERM; echo $$ > pids; while :; do sleep 1; done", cwd=tmp_path)
        await runtime.start()
        pids_in(tmp_path / "pids", 1)
        patient = asyncio.create_task(runtime.stop(StopMethod.STOP, 3600))
        await asyncio.sleep(0)
        await runtime.stop(StopMethod.STOP, 0)
        await patient
        assert RunState.STOPPED == (await runtime.observe()).state
        await runtime.close()

    run(test())


def test_a_cancelled_stop_still_kills_after_the_grace(run, tmp_path, eventually):
    async def test():
        runtime = shell("trap '' TERM; echo $$ > pids; while :; do sleep 1; done", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        (pid,) = pids_in(tmp_path / "pids", 1)
        stop = asyncio.create_task(runtime.stop(StopMethod.STOP, SHORT_S))
        await asyncio.sleep(0)
        stop.cancel()
        await eventually(lambda: not lives(pid))
        await eventually(lambda: Change.DIED in [event.change for event in told])
        await runtime.close()

    run(test())


def test_a_start_waits_for_the_previous_process_to_vanish(run, tmp_path):
    async def test():
        runtime = shell("trap '' TERM; echo $$ >> pids; while :; do sleep 1; done", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        (first,) = pids_in(tmp_path / "pids", 1)
        stop = asyncio.create_task(runtime.stop(StopMethod.STOP, SHORT_S))
        await asyncio.sleep(0)
        await runtime.start()
        assert not lives(first)
        await stop
        assert lives(pids_in(tmp_path / "pids", 2)[1])
        assert [Change.STARTED, Change.DIED, Change.STARTED] == [event.change for event in told]
        await runtime.stop(StopMethod.STOP, 0)
        await runtime.close()

    run(test())


def test_a_close_ends_the_process_and_refuses_starts(run, tmp_path):
    async def test():
        runtime = shell("sleep 1000 & echo $! > pids; wait", cwd=tmp_path)
        await runtime.start()
        (pid,) = pids_in(tmp_path / "pids", 1)
        await runtime.close()
        assert not lives(pid)
        with pytest.raises(RuntimeFailure, match="shutting down"):
            await runtime.start()

    run(test())


def test_a_pause_is_refused(run):
    async def test():
        runtime = shell("sleep 1000")
        await runtime.start()
        with pytest.raises(RuntimeFailure, match="pause"):
            await runtime.stop(StopMethod.PAUSE, GRACE_S)
        assert RunState.RUNNING == (await runtime.observe()).state
        await runtime.close()

    run(test())


def test_an_event_loop_that_ends_without_a_close_leaves_no_process(run, tmp_path):
    before = children()

    async def test():
        await shell("trap '' TERM; echo $$ > pids; while :; do sleep 1; done", cwd=tmp_path).start()

    run(test())
    assert before == children()


@pytest.mark.parametrize("steps", range(6))
def test_an_event_loop_that_ends_during_a_start_leaves_no_process(run, steps):
    before = children()

    async def test():
        start = asyncio.create_task(shell("sleep 1000").start())
        for _ in range(steps):
            await asyncio.sleep(0)
        assert start is not None

    run(test())
    assert before == children()


def test_an_event_loop_that_ends_just_after_the_spawn_leaves_no_process(run):
    before = children()

    async def test():
        runtime = shell("sleep 1000")
        runtime.watch(
            lambda _: [task.cancel() for task in asyncio.all_tasks()]
        )  # as the end of the loop does
        await runtime.start()

    with pytest.raises(asyncio.CancelledError):
        run(test())
    assert before == children()


# --- dying -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "by_hand"), [(signal.SIGTERM, True), (signal.SIGINT, True), (signal.SIGKILL, False)]
)
def test_a_signal_from_elsewhere_is_told(run, tmp_path, eventually, number, by_hand):
    async def test():
        runtime = shell("echo $$ > pids; exec sleep 1000", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        os.kill(pids_in(tmp_path / "pids", 1)[0], number)
        await eventually(lambda: len(told) == 2, told)
        assert RuntimeEvent(Change.DIED, exit_code=-number, by_hand=by_hand) == told[1]
        await runtime.close()

    run(test())


@pytest.mark.parametrize(
    ("counts", "out_of_memory"), [([3, 4], True), ([3, 3], False), ([None, None], False)]
)
def test_a_kill_that_the_kernel_counted_is_out_of_memory(run, tmp_path, eventually, counts, out_of_memory):
    async def test():
        runtime = shell("kill -KILL $$", cwd=tmp_path, count_oom_kills=iter(counts).__next__)
        told = watched(runtime)
        await runtime.start()
        await eventually(lambda: len(told) == 2, told)
        assert RuntimeEvent(Change.DIED, exit_code=-9, out_of_memory=out_of_memory) == told[1]
        await runtime.close()

    run(test())


def test_observe_knows_of_a_death_that_nobody_was_told_yet(run, tmp_path):
    async def test():
        runtime = shell("echo $$ > pids; exec sleep 1000", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        (pid,) = pids_in(tmp_path / "pids", 1)
        os.kill(pid, signal.SIGKILL)
        while lives(pid):
            pass  # the event loop does not run meanwhile
        assert RunState.STOPPED == (await runtime.observe()).state
        assert 1 == len(told)
        await runtime.close()

    run(test())


# --- not starting ----------------------------------------------------------------------------------


def script_in(directory: Path, text: str, mode: int = 0o755) -> str:
    path = directory / "program"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (lambda tmp: (["no-such-program-here"], tmp), "no such program on the PATH"),
        (lambda tmp: (["/no/such/program"], tmp), "no such program"),
        (lambda tmp: ([script_in(tmp, "#!/bin/sh\n", 0o644)], tmp), "cannot be executed: Permission denied"),
        (lambda tmp: ([str(tmp)], tmp), "cannot be executed: Permission denied"),
        (
            lambda tmp: ([script_in(tmp, "#!/no/such/shell\n")], tmp),
            "the interpreter that it names is not there",
        ),
        (lambda tmp: ([script_in(tmp, "neither #! nor ELF")], tmp), "Exec format error"),
        (lambda tmp: (["sleep", "1\0"], tmp), "null byte"),
        (lambda tmp: (["sleep", "1"], tmp / "gone"), "gone does not exist"),
        (lambda tmp: ([script_in(tmp, "#!/bin/sh\n")], tmp / "program"), "program is not a directory"),
    ],
)
def test_a_command_that_cannot_be_run_says_why(run, tmp_path, make, detail):
    async def test():
        command, cwd = make(tmp_path)
        runtime = ProcessRuntime(command, cwd, {}, free_port())
        told, before = watched(runtime), children()
        with pytest.raises(CommandNotFound) as caught:
            await runtime.start()
        assert detail in str(caught.value)
        assert command[0] == caught.value.command
        assert [] == told
        assert RunState.STOPPED == (await runtime.observe()).state
        assert before == children()
        await runtime.close()

    run(test())


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_port_that_somebody_listens_on_is_taken(run, tmp_path, address):
    async def test():
        with socket.create_server(
            (address, 0),
            family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            dualstack_ipv6=":" in address,
        ) as other:
            port = other.getsockname()[1]
            runtime = shell("echo $$ > pids; exec sleep 1000", port, cwd=tmp_path)
            with pytest.raises(PortTaken) as caught:
                await runtime.start()
        assert port == caught.value.port
        assert "Address already in use" in str(caught.value)
        assert not (tmp_path / "pids").exists()
        assert port == (await runtime.start()).port  # it is free again
        await runtime.close()

    run(test())


def test_connections_that_linger_do_not_take_the_port(run):
    async def test():
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):
                server.accept()[0].close()  # whoever closes first keeps the port in TIME_WAIT
        runtime = shell("sleep 1000", port)
        await runtime.start()
        await runtime.close()

    run(test())


# --- what it is given ------------------------------------------------------------------------------


def test_it_inherits_no_file_descriptors(run, tmp_path):
    # One write: an unfinished line is in the tail, too.
    script = (
        "import os; fds = sorted(map(int, os.listdir('/proc/self/fd')));"
        "os.write(1, f'{fds} {os.readlink(\"/proc/self/fd/0\")}\\n'.encode())"
    )
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    stdin = os.dup(0)
    os.dup2(reading, 0)

    async def test():
        runtime = ProcessRuntime([sys.executable, "-c", script], tmp_path, {}, free_port())
        await runtime.start()
        while not (tail := await runtime.log_tail(9)):
            await asyncio.sleep(0.005)
        assert ["[0, 1, 2, 3] /dev/null"] == tail  # 3 is the directory that it lists
        await runtime.close()

    try:
        run(test())
    finally:
        os.dup2(stdin, 0)
        for fd in (stdin, reading, writing):
            os.close(fd)


def test_it_leads_a_session_of_its_own(run, tmp_path):
    async def test():
        runtime = shell("echo $$ > pids; exec sleep 1000", cwd=tmp_path)
        await runtime.start()
        (pid,) = pids_in(tmp_path / "pids", 1)
        assert (pid, pid) == (os.getsid(pid), os.getpgid(pid))
        await runtime.close()

    run(test())


def test_it_gets_our_environment_and_its_own_but_not_what_systemd_tells_us(run, monkeypatch):
    ours = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"]
    for name in (*ours, "INHERITED", "REPLACED"):
        monkeypatch.setenv(name, "autostart's")

    async def test():
        runtime = shell("env; echo that is all", env={"REPLACED": "its own", "ADDED": "its own"})
        await runtime.start()
        while "that is all" not in (tail := await runtime.log_tail(200)):
            await asyncio.sleep(0.005)
        env = dict(line.split("=", 1) for line in tail if "=" in line)
        assert "autostart's" == env["INHERITED"]
        assert ("its own", "its own") == (env["REPLACED"], env["ADDED"])
        assert set() == set(ours) & set(env)
        await runtime.close()

    run(test())


# --- what it prints --------------------------------------------------------------------------------


def memory_bytes(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(which)


@pytest.mark.parametrize(
    "flood",
    ["head -c 100000000 /dev/zero", "yes 'a line of the flood' | head -c 100000000"],
    ids=["one", "many"],
)
def test_a_flood_of_output_takes_no_memory(run, eventually, flood):
    async def test():
        runtime = shell(f"{flood}; echo; echo the last line")
        told = watched(runtime)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far: proc(5)
        before_bytes = memory_bytes("VmRSS")
        await runtime.start()
        await eventually(lambda: len(told) == 2, told)
        assert ["the last line"] == await runtime.log_tail(1)
        assert memory_bytes("VmHWM") - before_bytes < 20_000_000
        assert all(len(line) <= 4097 for line in await runtime.log_tail(1000))
        assert len(await runtime.log_tail(1000)) <= 200
        await runtime.close()

    run(test())


def test_the_last_words_of_a_process_are_there_when_its_death_is_told(run, eventually):
    async def test():
        runtime = shell("printf 'no newline after this'; exit 1")
        tails = []
        runtime.watch(lambda event: tails.append((event.change, runtime._tail.last(1))))
        await runtime.start()
        await eventually(lambda: len(tails) == 2, tails)
        assert (Change.DIED, ["no newline after this"]) == tails[1]
        await runtime.close()

    run(test())


def test_a_stop_that_finds_it_dead_tells_of_its_own_end_with_its_last_words(run, tmp_path):
    async def test():
        runtime = shell("echo $$ > pids; echo the last words; exit 3", cwd=tmp_path)
        told = []
        runtime.watch(lambda event: told.append((event, runtime._tail.last(1))))
        await runtime.start()
        (pid,) = pids_in(tmp_path / "pids", 1)
        while lives(pid):
            pass  # the event loop does not run meanwhile
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert (RuntimeEvent(Change.DIED, exit_code=3), ["the last words"]) == told[-1]
        await runtime.close()

    run(test())


def test_the_log_tail_is_of_the_last_run_only(run, eventually, tmp_path):
    async def test():
        runtime = shell("if [ -e been ]; then echo second; else touch been; echo first; fi", cwd=tmp_path)
        told = watched(runtime)
        for number, line in ((2, "first"), (4, "second")):
            await runtime.start()
            await eventually(lambda number=number: len(told) == number, told)
            assert [line] == await runtime.log_tail(9)
        await runtime.close()

    run(test())


def test_a_process_that_closes_its_output_goes_on(run, tmp_path, eventually):
    async def test():
        script = "echo $$ > pids; while [ ! -e go ]; do sleep 0.01; done; exec >&- 2>&-; exec sleep 1000"
        runtime = shell(script, cwd=tmp_path)
        await runtime.start()
        (pid,) = pids_in(tmp_path / "pids", 1)
        at_start = open_fds()
        (tmp_path / "go").touch()
        await eventually(lambda: open_fds() == at_start - 1)  # an end of file is not read again and again
        assert lives(pid)
        assert RunState.RUNNING == (await runtime.observe()).state
        assert [] == await runtime.log_tail(9)
        await runtime.close()

    run(test())


def test_output_goes_to_the_log_when_debugging(run, eventually, caplog):
    async def test():
        runtime = shell("echo spoken", label="whisper.example.org")
        told = watched(runtime)
        with caplog.at_level("DEBUG", "autostart.service"):
            await runtime.start()
            await eventually(lambda: len(told) == 2, told)
        (record,) = (record for record in caplog.records if record.name == "autostart.service")
        assert ("spoken", "whisper.example.org") == (record.getMessage(), record.service)
        await runtime.close()

    run(test())


# --- what it leaves behind -------------------------------------------------------------------------


def test_no_zombie_and_no_file_descriptor_stays(run, tmp_path, eventually):
    async def test():
        runtime = shell("sleep 1000 & wait", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()  # what is made once (a thread, an epoll) is made now
        await runtime.stop(StopMethod.STOP, GRACE_S)
        before = children(), open_fds()
        for _ in range(10):
            await runtime.start()
            await runtime.stop(StopMethod.STOP, GRACE_S)
        assert before == (children(), open_fds())
        dying = shell("exit 1")
        told = watched(dying)
        for number in range(1, 11):
            await dying.start()
            await eventually(lambda number=number: len(told) == 2 * number, told)
        await dying.stop(StopMethod.STOP, GRACE_S)
        assert before == (children(), open_fds())
        missing = ProcessRuntime(["/no/such/program"], None, {}, free_port())
        for _ in range(10):
            with pytest.raises(CommandNotFound):
                await missing.start()
        assert before == (children(), open_fds())
        for used in (runtime, dying, missing):
            await used.close()

    run(test())


OWNER = """
import asyncio, subprocess, sys, uvloop
from pathlib import Path
from autostart.runtime.process import ProcessRuntime

async def main(scripts):
    runtimes = [
        ProcessRuntime(["/bin/sh", "-c", script], Path(cwd), {}, int(port), orphan_grace_s=0.3)
        for port, cwd, script in zip(scripts[::3], scripts[1::3], scripts[2::3])
    ]
    for runtime in runtimes:
        await runtime.start()
    other = subprocess.Popen(["sleep", "1000"], close_fds=False)  # a child of ours that has nothing to do with it
    print(other.pid, flush=True)
    await asyncio.Event().wait()

loop = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[sys.argv[1]]
with asyncio.Runner(loop_factory=loop) as runner:
    runner.run(main(sys.argv[2:]))
"""

OBEDIENT = "sleep 1000 & echo $! >> pids; echo $$ >> pids; wait"
DEAF = "trap '' TERM; sleep 1000 & echo $! >> pids; echo $$ >> pids; while :; do sleep 1; done"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_an_autostart_that_is_killed(tmp_path, eventually, loop, death):
    arguments = []
    for script in (OBEDIENT, DEAF):
        directory = tmp_path / str(len(arguments))
        directory.mkdir()
        arguments += [str(free_port()), str(directory), script]
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, loop, *arguments], stdout=subprocess.PIPE, text=True
    )
    other = None
    try:
        assert owner.stdout is not None
        other = int(owner.stdout.readline())
        started = [pid for place in arguments[1::3] for pid in pids_in(Path(place, "pids"), 2)]
        guards = children(owner.pid) - set(started) - {other}
        assert (4, 2) == (len(started), len(guards))
        assert all(map(lives, [*started, *guards]))
        owner.send_signal(death)
        owner.wait()
        everybody = [*started, *guards]
        asyncio.run(eventually(lambda: not any(map(lives, everybody)), everybody))
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
        if other:
            os.kill(other, signal.SIGKILL)


def guard_of(before: set[int], leader: int) -> int:
    (guard,) = children() - before - {leader}
    return guard


def test_a_guard_that_is_killed_does_no_harm(run, tmp_path):
    async def test():
        before = children()
        runtime = shell("echo $$ > pids; exec sleep 1000", cwd=tmp_path)
        told = watched(runtime)
        await runtime.start()
        (leader,) = pids_in(tmp_path / "pids", 1)
        guard = guard_of(before, leader)
        os.kill(guard, signal.SIGKILL)
        while lives(guard):
            await asyncio.sleep(0.005)
        assert lives(leader)
        assert 1 == len(told)
        await runtime.stop(StopMethod.STOP, GRACE_S)
        assert before == children()
        await runtime.close()

    run(test())


def test_the_guard_is_not_in_the_group_and_ignores_what_is_sent_to_everybody(run, tmp_path):
    async def test():
        before = children()
        runtime = shell("echo $$ > pids; exec sleep 1000", cwd=tmp_path)
        await runtime.start()
        (leader,) = pids_in(tmp_path / "pids", 1)
        guard = guard_of(before, leader)
        assert guard == os.getpgid(guard)
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{guard}/status").read_text().splitlines()
            if ":\t" in line
        )
        ignored = int(status["SigIgn"], 16)
        assert all(ignored >> (number - 1) & 1 for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
        await runtime.close()

    run(test())


# --- CPU -------------------------------------------------------------------------------------------

BURN = "ulimit -t 30; while :; do :; done"  # a limit, should the test itself be killed
OWN_GROUP = "import os, sys; os.setpgid(0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
ORPHAN = OWN_GROUP.replace("os.setpgid", "os.fork() and os._exit(0); os.setpgid")


@pytest.mark.parametrize(
    "script",
    [
        f"({BURN}) & echo $! > pids; wait",
        f"setsid -w sh -c 'echo $$ > pids; {BURN}' & wait",
        f"{sys.executable} -c '{OWN_GROUP}' sh -c 'echo $$ > pids; {BURN}' & wait",
        f"{sys.executable} -c '{ORPHAN}' sh -c 'echo $$ > pids; {BURN}'; sleep 1000",
    ],
    ids=["child", "own-session", "own-group", "orphan"],
)
def test_cpu_seconds_are_of_all_that_the_process_has_started(run, tmp_path, script):
    async def test():
        runtime = shell(script, cwd=tmp_path)
        await runtime.start()
        (pid,) = pids_in(tmp_path / "pids", 1)
        try:
            async with asyncio.timeout(LIMIT_S):
                while sum((await runtime.cpu_seconds()).values()) < 0.2:
                    await asyncio.sleep(0.01)
        finally:
            os.kill(pid, signal.SIGKILL)  # who has left the group is not ended with it
            await runtime.close()

    run(test())


def test_cpu_seconds_of_a_child_that_has_ended_are_its_parents(run, tmp_path):
    async def test():
        work = "import time\nwhile time.process_time() < 0.3: pass"
        runtime = shell(f"{sys.executable} -c '{work}'; echo $$ > pids; sleep 1000", cwd=tmp_path)
        await runtime.start()
        pids_in(tmp_path / "pids", 1)
        assert sum((await runtime.cpu_seconds()).values()) >= 0.25
        await runtime.close()

    run(test())


def test_cpu_seconds_of_a_process_are_not_those_of_a_later_one_with_its_number(run, tmp_path):
    async def test():
        runtime = shell("sleep 1000")
        names = set()
        for _ in range(2):
            await runtime.start()
            names |= (await runtime.cpu_seconds()).keys()
            await runtime.stop(StopMethod.STOP, GRACE_S)
        await runtime.close()
        assert all(name.partition(":")[2] for name in names)
        assert len(names) >= 2

    run(test())
