"""The command line as a person meets it: a process of its own, asking a real admin server."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys

import pytest
from stand import run_command, with_stand
from waiting import until

from autostart import errors
from autostart.admin import server
from autostart.admin.client import NotAllowed, ask
from autostart.cli import control
from autostart.errors import ConfigError, Problem
from autostart.lifecycle import State

HOST = "whisper.test"
HOSTS = {HOST: {"name": "Whisper", "aliases": ["w.test"]}, "whisperx.test": {"idle_timeout": "never"}}


def test_status_shows_a_row_for_each_service(tmp_path):
    async def test(stand):
        await stand.services[HOST].start("alice")
        await stand.services["whisperx.test"].start("bob")
        stand.services[HOST].hold(7200)
        answer = await stand.run("status")
        assert (answer.code, answer.err) == (0, "")
        head, first, second = answer.out.splitlines()
        assert head.split() == ["NAME", "STATE", "SINCE", "IN-USE", "LAST-USED", "SLEEPS-IN", "WOKEN-BY"]
        assert re.fullmatch(r"whisper\.test  +ready +\S+ +- +\S+ ago +(2h|1h 59m) \(held\) +alice", first)
        assert re.fullmatch(r"whisperx\.test +ready +\S+ +- +\S+ ago +never +bob", second)
        assert first.index("ready") == second.index("ready") == head.index("STATE")

    with_stand(tmp_path, HOSTS, test)


def test_status_of_a_sleeping_service_starts_nothing(tmp_path):
    async def test(stand):
        answer = await stand.run("status", "whisper")
        assert re.fullmatch(r"whisper\.test  stopped  +\S+ +- +- +- +-", answer.out.splitlines()[1])
        assert len(answer.out.splitlines()) == 2
        assert stand.runtimes[HOST].starts == 0

    with_stand(tmp_path, HOSTS, test)


def test_status_counts_who_uses_it_and_who_waits(tmp_path):
    async def test(stand):
        async with stand.services[HOST].lease("alice"):
            waiter = asyncio.create_task(stand.services["whisperx.test"].start("bob"))
            stand.runtimes["whisperx.test"].start_gate = gate = asyncio.Event()
            await until(lambda: stand.services["whisperx.test"].state is State.STARTING)
            first, second = (await stand.run("status")).out.splitlines()[1:]
            assert re.fullmatch(r"whisper\.test +ready +\S+ +1 +- +in use +alice", first)
            assert re.fullmatch(r"whisperx\.test +starting +\S+ +1 waiting +- +- +bob", second)
            gate.set()
            await waiter

    with_stand(tmp_path, HOSTS, test)


def test_status_tells_of_failures(tmp_path):
    async def test(stand):
        stand.runtimes[HOST].start_failure = errors.ImageMissing("whisper:1")
        stand.services[HOST].wake("alice")
        await until(lambda: stand.services[HOST].state is State.FAILED)
        answer = await stand.run("status")
        assert (
            "whisper.test: image 'whisper:1' is missing (see `autostart explain whisper.test`)" in answer.out
        )

    with_stand(tmp_path, HOSTS, test)


def test_status_is_json_for_programs(tmp_path):
    async def test(stand):
        listed = (await stand.run("status", "--json")).json()
        assert [service["service"] for service in listed["services"]] == list(HOSTS)
        assert (await stand.run("status", "w.test", "--json")).json()["service"] == HOST

    with_stand(tmp_path, HOSTS, test)


def test_status_of_no_services_says_so(tmp_path):
    async def test(stand):
        assert (await stand.run("status")).out == "no services are configured\n"

    with_stand(tmp_path, {}, test)


def test_name_from_outside_cannot_drive_the_terminal(tmp_path):
    async def test(stand):
        await stand.services[HOST].start("\x1b]0;gotcha\x07\nwhisperx.test  ready")
        for command in ("status", "explain"):
            answer = await stand.run(command, "whisper")
            assert r"\x1b]0;gotcha\x07\n" in answer.out
            assert all(line.isprintable() for line in answer.out.splitlines())

    with_stand(tmp_path, HOSTS, test)


def test_colours_are_for_terminals_only(tmp_path):
    async def test(stand):
        await stand.services[HOST].start("alice")
        assert "\x1b" not in (await stand.run("status")).out
        here, there = os.openpty()
        process = await asyncio.create_subprocess_exec(
            *("python", "-m", "autostart", "status", "whisper", "--socket", str(stand.socket)),
            executable=os.sys.executable,
            stdout=there,
        )
        os.close(there)
        assert await process.wait() == 0
        assert b"\x1b[32mready\x1b[0m" in os.read(here, 4096)
        os.close(here)

    with_stand(tmp_path, HOSTS, test)


def test_start_waits_until_ready(tmp_path):
    async def test(stand):
        answer = await stand.run("start", "whisper")
        assert answer.code == 0
        assert re.fullmatch(r"whisper\.test is ready, after \d+\.\d\d s\n", answer.out)
        assert stand.services[HOST].state is State.READY

    with_stand(tmp_path, HOSTS, test)


def test_start_of_a_ready_service_says_so(tmp_path):
    async def test(stand):
        await stand.services[HOST].start("alice")
        assert (await stand.run("start", "whisper")).out == "whisper.test was ready already\n"
        assert stand.runtimes[HOST].starts == 1

    with_stand(tmp_path, HOSTS, test)


def test_start_that_fails_explains_itself(tmp_path):
    async def test(stand):
        stand.runtimes[HOST].start_failure = errors.ImageMissing("whisper:1")
        answer = await stand.run("start", "whisper")
        assert (answer.code, answer.out) == (1, "")
        assert answer.err.splitlines() == [
            "autostart: the service could not be started: image 'whisper:1' is missing",
            "autostart: what may help: pull it or build it with `docker compose build`",
            "  | first line",
            "  | last line",
        ]

    with_stand(tmp_path, HOSTS, test)


def test_stop_of_a_service_in_use_needs_force(tmp_path):
    async def test(stand):
        async with stand.services[HOST].lease("alice"):
            answer = await stand.run("stop", "whisper")
            assert (answer.code, answer.err) == (1, "autostart: the service is in use by 1 request(s)\n")
            assert stand.services[HOST].state is State.READY
            answer = await stand.run("stop", "whisper", "--force")
            assert (answer.code, answer.out) == (0, "whisper.test is stopped\n")

    with_stand(tmp_path, HOSTS, test)


def test_hold_and_release(tmp_path):
    async def test(stand):
        await stand.services[HOST].start("alice")
        answer = await stand.run("hold", "whisper", "--for", "1h30m")
        assert (answer.code, answer.out) == (0, "whisper.test is held awake for 1h 30m\n")
        assert stand.services[HOST].snapshot().held_for_s > 5000
        answer = await stand.run("release", "whisper")
        assert (answer.code, answer.out) == (0, "whisper.test is not held any more\n")
        assert stand.services[HOST].snapshot().held_for_s == 0

    with_stand(tmp_path, HOSTS, test)


def test_hold_of_a_sleeping_service_says_that_it_starts_nothing(tmp_path):
    async def test(stand):
        assert (
            "it is stopped now, a hold does not start it"
            in (await stand.run("hold", "whisper", "--for", "1h")).out
        )

    with_stand(tmp_path, HOSTS, test)


def test_hold_for_nonsense_is_a_mistake_of_usage(tmp_path):
    async def test(stand):
        answer = await stand.run("hold", "whisper", "--for", "a while")
        assert answer.code == 2
        assert "'a while' is not a duration" in answer.err

    with_stand(tmp_path, HOSTS, test)


@pytest.mark.parametrize(
    ("duration", "told"), [("0", "`autostart release`"), ("400d", "400d is more than a year")]
)
def test_hold_for_nothing_or_for_ever_is_a_mistake_of_usage(tmp_path, duration, told):
    async def test(stand):
        answer = await stand.run("hold", "whisper", "--for", duration)
        assert (answer.code, answer.out) == (2, "")
        assert told in answer.err

    with_stand(tmp_path, HOSTS, test)


def test_longest_hold_of_the_command_line_is_that_of_the_local_api():
    assert control._LONGEST_HOLD_S == server._LONGEST_HOLD_S


def test_service_without_a_name_is_a_mistake_of_usage(tmp_path):
    answer = run("start", "")
    assert answer.code == 2
    assert "argument SERVICE: it is empty" in answer.err


def test_name_that_several_services_come_near_lists_them(tmp_path):
    async def test(stand):
        answer = await stand.run("status", "test")
        assert answer.err == (
            "autostart: no service is called 'test'; did you mean whisper.test or whisperx.test?\n"
        )

    with_stand(tmp_path, HOSTS, test)


def test_explain_tells_in_sentences(tmp_path):
    async def test(stand):
        await stand.services[HOST].start("alice")
        answer = await stand.run("explain", "whisper")
        first, *sentences = answer.out.splitlines()
        assert first == "whisper.test (Whisper): ready"
        assert any("It was woken by alice at" in sentence for sentence in sentences)
        assert (await stand.run("explain", "whisper", "--json")).json()["explanation"]

    with_stand(tmp_path, HOSTS, test)


def test_reload_is_asked_for(tmp_path):
    async def test(stand):
        answer = await stand.run("reload")
        assert (answer.code, answer.out) == (0, "the configuration was reloaded: 2 services\n")
        assert stand.reloads == 1

    with_stand(tmp_path, HOSTS, test)


def test_reload_of_a_broken_configuration_tells_every_mistake(tmp_path):
    async def test(stand):
        async def reload():
            raise ConfigError(
                tmp_path / "c.json", [Problem("a", "is wrong", "right"), Problem("b", "is bad")]
            )

        stand.reload = reload
        answer = await stand.run("reload")
        assert answer.code == 2
        assert answer.err.splitlines() == [
            f"autostart: {tmp_path}/c.json: a: is wrong (accepted: right)",
            f"autostart: {tmp_path}/c.json: b: is bad",
        ]

    with_stand(tmp_path, HOSTS, test)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nothing", "no service is called 'nothing'"),
        ("wh", "'wh' is the beginning of several services: whisper.test"),
    ],
)
def test_service_that_is_not_clear_is_a_mistake_of_usage(tmp_path, name, told):
    async def test(stand):
        answer = await stand.run("start", name)
        assert answer.code == 2
        assert told in answer.err
        assert not any(runtime.starts for runtime in stand.runtimes.values())

    with_stand(tmp_path, HOSTS, test)


def test_reader_that_leaves_early_is_no_failure_with_a_traceback(tmp_path):
    async def test(stand):
        read, write = os.pipe()
        os.close(read)
        process = await asyncio.create_subprocess_exec(
            *("python", "-m", "autostart", "status", "--socket", str(stand.socket)),
            executable=os.sys.executable,
            stdout=write,
            stderr=asyncio.subprocess.PIPE,
        )
        os.close(write)
        _, err = await process.communicate()
        assert (process.returncode, err) == (1, b"")

    with_stand(tmp_path, HOSTS, test)


# --- nobody there ----------------------------------------------------------------------------------------


def config(tmp_path, **options):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"services": {}, **options}))
    return str(path)


def run(*arguments, **options):
    return asyncio.run(run_command(*arguments, **options))


def test_missing_socket_means_not_running(tmp_path):
    answer = run("status", "-c", config(tmp_path, admin={"socket": str(tmp_path / "admin.sock")}))
    assert answer.code == 3
    assert (
        answer.err == f"autostart: autostart is not running: {tmp_path}/admin.sock: there is no such socket\n"
    )


def test_socket_of_a_dead_autostart_means_not_running(tmp_path):
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    answer = run("stop", "whisper", "--socket", str(path))
    assert (answer.code, "nobody listens on it" in answer.err) == (3, True)


@pytest.mark.parametrize(
    "answer",
    [b"200 OK\r\nContent-Length: 5\r\n\r\nhello", b'500 No\r\nContent-Length: 13\r\n\r\n{"error":"x"}'],
)
def test_something_else_on_the_socket_is_told_as_such(tmp_path, answer):
    async def body():
        async def talk(reader, writer):
            await reader.readline()
            writer.write(b"HTTP/1.1 " + answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(talk, tmp_path / "other.sock")
        async with server:
            return await run_command("status", "--socket", str(tmp_path / "other.sock"))

    answer = asyncio.run(body())
    assert (answer.code, "what answers there is not autostart" in answer.err) == (3, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_socket_of_somebody_else_is_told_as_such(tmp_path):
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        path.chmod(0o600)
        for parent in (tmp_path, *list(tmp_path.parents)[:-2]):
            parent.chmod(parent.stat().st_mode | 0o711)
        os.seteuid(65534)
        try:
            with pytest.raises(NotAllowed) as raised:
                ask(path, "GET", "/health")
        finally:
            os.seteuid(0)
    assert str(raised.value).startswith(f"no right to use {path}: run this as the user that runs")


@pytest.mark.parametrize(
    ("text", "told"), [("{", "cannot be understood"), (None, "cannot be read: No such file")]
)
def test_configuration_that_does_not_tell_the_socket_is_named(tmp_path, text, told):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    answer = run("status", "-c", str(path))
    assert answer.code == 2
    assert answer.err.startswith(f"autostart: {path}: {told}")


def test_reason_stands_beside_a_configuration_that_does_not_tell_the_socket(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"services": {},}')
    assert "line 1 column 17" in run("reload", "-c", str(path)).err


@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_socket_is_found_in_a_configuration_that_is_broken_elsewhere(tmp_path, name):
    path = tmp_path / name
    path.write_text('{"admin": {"socket": "there.sock"}, "services": {{}}')
    answer = run("status", "-c", str(path))
    assert (answer.code, f"{tmp_path}/there.sock" in answer.err) == (3, True)


def test_socket_is_found_in_a_yaml_configuration(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"services: {{}}\nadmin:\n  socket: {tmp_path}/there.sock\n")
    assert f"{tmp_path}/there.sock" in run("status", env={"AUTOSTART_CONFIG": str(path)}).err


# --- the rest --------------------------------------------------------------------------------------------


def test_check_tells_every_mistake_and_ends_with_2(tmp_path):
    answer = run("check", config(tmp_path, listen=["nowhere"], nonsense=1))
    assert answer.code == 2
    assert f"{tmp_path}/config.json: listen[0]: " in answer.out
    assert f"{tmp_path}/config.json: nonsense: there is no such option" in answer.out


def test_demo_without_its_packages_names_the_way_to_play_it():
    program = (
        "import sys; sys.modules['httpx'] = None; from autostart.cli import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    told = "autostart: the demo is played in a checkout, with `make demo`; here is no httpx\n"
    assert done.stderr == told


def test_check_tells_a_broken_htpasswd_once(tmp_path):
    options = {"admin": {"socket": str(tmp_path / "admin.sock")}, "auth": {"htpasswd": "nowhere"}}
    answer = run("check", config(tmp_path, stateFile=None, spoolDir=str(tmp_path), **options))
    assert answer.err == ""
    assert answer.out.count("nowhere") == 1


def test_check_of_a_good_configuration_ends_with_0(tmp_path):
    options = {"admin": {"socket": str(tmp_path / "admin.sock"), "metrics": None}, "stateFile": None}
    answer = run("check", "-c", config(tmp_path, listen=["127.0.0.1:0"], **options))
    assert (answer.code, answer.out.splitlines()[-1].startswith(f"{tmp_path}/config.json: ok")) == (0, True)


def test_serve_with_a_broken_configuration_ends_with_2(tmp_path):
    answer = run("serve", "--config", config(tmp_path, nonsense=1))
    assert answer.code == 2
    assert "nonsense: there is no such option" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [[], ["nonsense"], ["start"], ["hold", "x"]],
    ids=["nothing", "unknown", "no service", "no time"],
)
def test_wrong_usage_ends_with_2(arguments):
    answer = run(*arguments)
    assert (answer.code, answer.err.startswith("usage: autostart")) == (2, True)


def test_version_is_shown():
    assert re.fullmatch(r"\d+[\w.+]*\n", run("--version").out)


def test_status_loads_neither_aiohttp_nor_the_models():
    code = "import sys, autostart.cli.status; print(sorted({'aiohttp', 'pydantic', 'yaml', 'asyncio'} & set(sys.modules)))"

    async def body():
        process = await asyncio.create_subprocess_exec(
            os.sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
        )
        return (await process.communicate())[0]

    assert asyncio.run(body()) == b"[]\n"


def test_service_named_in_bytes_that_are_no_text_is_unknown(tmp_path):
    async def test(stand):
        answer = await stand.run("status", os.fsdecode(b"\xff"))
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith("autostart: no service is called ")
        assert "Traceback" not in answer.err

    with_stand(tmp_path, HOSTS, test)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'\xef\xbb\xbf{"admin": {"socket": "admin.sock"}}', "autostart is not running: "),
        (rb'{"admin": {"socket": "\ud800"}}', "admin.socket holds half a character"),
        (rb'{"admin": {"socket": "a\u0000b"}}', "autostart is not running: "),
    ],
    ids=["byte-order-mark", "half-a-character", "nul"],
)
def test_odd_bytes_in_the_configuration_are_no_traceback(tmp_path, content, told):
    (tmp_path / "config.json").write_bytes(content)
    answer = asyncio.run(run_command("status", "--config", str(tmp_path / "config.json")))
    assert answer.code in (2, 3)
    assert told in answer.err
    assert "Traceback" not in answer.err
