"""What the log looks like: one line an event, nothing that somebody else wrote breaks out of its value."""

import io
import logging
import os
import re
import sys
import warnings

import pytest

from autostart import auth, errors, log
from autostart.lifecycle import State, events
from autostart.lifecycle.events import StopReason
from autostart.proxy.events import RequestEnded, WebSocketOpened
from autostart.runtime.base import Change

HOST = "whisper.test"
FAILURE = errors.Exited("Whisper", 3, ["Loading the model", "Traceback: no such file"])

LIFECYCLE = [
    events.StartBegan(HOST, "alice", adopted=False),
    events.StartSucceeded(HOST, "alice", False, events.Phases(0.1, 2.0), 3),
    events.StartFailed(HOST, "alice", FAILURE, 3, 5.0),
    events.StopBegan(HOST, StopReason.IDLE),
    events.Stopped(HOST, StopReason.CRASHED, 12.0, 1, exit_code=137, out_of_memory=True),
    events.StopFailed(HOST, StopReason.IDLE, errors.StopFailed("it would not go"), True),
    events.RuntimeTrouble(HOST, "observe", errors.EngineUnreachable("unix:///run/docker.sock")),
    events.RuntimeTrouble(HOST, "health", change=Change.UNHEALTHY),
    events.Transition(HOST, State.STOPPED, State.STARTING),
]


def ended(**facts):
    told = {
        "service": HOST,
        "request_id": "r1",
        "method": "POST",
        "path": "/v1/audio/transcriptions",
        "status": 200,
        "code": "",
        "duration_s": 0.25,
        "waited_s": 0.0,
        "bytes_in": 1000,
        "bytes_out": 50,
        "websocket": False,
        "client": "127.0.0.1",
        "identity": "alice",
        "failed_auth": False,
    }
    return RequestEnded(**(told | facts))


@pytest.fixture(autouse=True)
def restore_logging():
    """Leave the logging of the whole process as it was."""
    names = ["", "asyncio", "aiohttp", "aiohttp.access", "docker", "urllib3"]
    levels = {name: logging.getLogger(name).level for name in names}
    flags = {
        name: getattr(logging, name)
        for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")
    }
    root = logging.getLogger()
    handlers = root.handlers[:]
    shown = warnings.showwarning
    yield
    root.handlers[:] = handlers
    logging.captureWarnings(False)
    warnings.showwarning = shown
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for name, value in flags.items():
        setattr(logging, name, value)


@pytest.fixture
def lines():
    """The lines logged so far, at debug level, as a terminal gets them but without the time."""
    stream = io.StringIO()
    log.setup("debug", stream)
    return lambda: [line.split(maxsplit=3)[3] for line in stream.getvalue().splitlines()]


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """The lines logged so far, as the journal gets them: on the very file that JOURNAL_STREAM names."""
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log.setup("debug", stream)
        yield lambda: (tmp_path / "journal").read_text().splitlines()


@pytest.mark.parametrize("event", LIFECYCLE, ids=lambda event: type(event).__name__)
def test_every_line_about_a_service_names_its_host(event, lines):
    log.log_lifecycle(event)
    assert lines()
    for line in lines():
        assert f" service={HOST}" in line


def test_the_end_of_each_use_is_not_logged(lines):
    log.log_lifecycle(events.Used(HOST, 1.0))
    assert lines() == []


def test_failed_start_tells_cause_hold_off_and_last_output(lines):
    log.log_lifecycle(events.StartFailed(HOST, "alice", FAILURE, 3, 5.0))
    first, *output = lines()
    assert "event=start_failed" in first
    assert "cause=exited" in first
    assert "held_off_s=5" in first
    assert 'error="Whisper ended with exit code 3 before it was ready"' in first
    assert [line.partition("line=")[2] for line in output] == [
        '"Loading the model"',
        '"Traceback: no such file"',
    ]


@pytest.mark.parametrize(
    ("event", "priority"),
    [
        (events.StartFailed(HOST, "alice", errors.PortTaken(80), 0, 5.0), 3),
        (events.Stopped(HOST, StopReason.CRASHED, 1.0, 0), 3),
        (events.RuntimeTrouble(HOST, "observe", errors.EngineForbidden("x")), 4),
        (events.Stopped(HOST, StopReason.IDLE, 1.0, 0), 6),
        (events.Transition(HOST, State.STOPPED, State.STARTING), 7),
    ],
    ids=["failed start", "crash", "runtime error", "idle stop", "transition"],
)
def test_journal_gets_a_priority(event, priority, journal):
    log.log_lifecycle(event)
    assert journal()[0].startswith(f"<{priority}>event=")


def test_terminal_gets_time_and_level_instead_of_a_priority(tmp_path, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")  # inherited, but stderr was sent elsewhere
    with (tmp_path / "terminal").open("w") as stream:
        log.setup("info", stream)
        log.log_lifecycle(events.StopBegan(HOST, StopReason.IDLE))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info    event=stopping service=whisper\.test reason=idle\n",
        (tmp_path / "terminal").read_text(),
    )


def test_traceback_on_a_terminal_keeps_its_lines_but_no_credential_and_no_command():
    stream = io.StringIO()
    log.setup("info", stream)
    exception = ValueError("\x1b[2J Bearer c2VjcmV0OnBhc3N3b3Jk")
    logging.getLogger("autostart").error("something went wrong", exc_info=exception)
    assert stream.getvalue().splitlines()[1:] == [r"ValueError: \x1b[2J Bearer …"]


def test_action_of_a_person_names_them_and_the_service(lines):
    log.log_action("held", HOST, "alice on the command line", for_s=3600.0)
    assert lines() == [f'event=held service={HOST} by="alice on the command line" for_s=3600']


def test_request_is_one_line_with_its_facts(lines):
    log.log_request(ended(waited_s=2.5))
    expected = (
        f"event=request service={HOST} method=POST path=/v1/audio/transcriptions status=200 duration_s=0.25 "
        "waited_s=2.5 bytes_in=1000 bytes_out=50 client=127.0.0.1 user=alice id=r1"
    )
    assert lines() == [expected]


def test_websocket_is_logged_when_it_opens_and_when_it_closes(lines):
    log.log_request(WebSocketOpened(HOST, "r1"))
    log.log_request(ended(websocket=True, status=101))
    assert [line.partition(" ")[0] for line in lines()] == [
        "event=websocket_opened",
        "event=websocket_closed",
    ]


@pytest.mark.parametrize("field", ["path", "method", "identity", "client", "request_id"])
@pytest.mark.parametrize(
    "value", ["a\n<0>event=ready service=other", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\x85b", "a\x00b"]
)
def test_nobody_writes_a_line_of_their_own_into_the_journal(field, value, journal):
    log.log_request(ended(**{field: value}))
    assert len(journal()) == 1
    assert all(char.isprintable() for char in journal()[0])


def test_nobody_forges_another_field(lines):
    log.log_request(ended(path='/x" status=200 user="root'))
    assert r'path="/x\" status=200 user=\"root"' in lines()[0]


def test_output_of_a_container_cannot_drive_the_terminal(lines):
    failure = errors.Exited("Whisper", 1, ["\x1b]0;title\x07 done"])
    log.log_lifecycle(events.StartFailed(HOST, "alice", failure, 0, 5.0))
    assert all(line.isprintable() for line in lines())


def test_query_is_never_logged(lines):
    log.log_request(ended(path="/v1/models?api_key=hunter2"))
    assert "hunter2" not in lines()[0]
    assert "path=/v1/models " in lines()[0]


@pytest.mark.parametrize("scheme", ["Bearer", "basic"])
def test_credentials_that_a_library_or_container_prints_are_blotted_out(scheme, journal):
    secret = "c2VjcmV0OnBhc3N3b3Jk"
    logging.getLogger("somelibrary").error("headers: {'Authorization': '%s %s'}", scheme, secret)
    failure = errors.Exited("Whisper", 1, [f"Authorization: {scheme} {secret}"])
    log.log_lifecycle(events.StartFailed(HOST, "alice", failure, 0, 5.0))
    logging.getLogger("autostart").error("something went wrong", exc_info=ValueError(f"{scheme} {secret}"))
    assert len(journal()) > 3
    assert secret not in "\n".join(journal())


def test_our_own_keys_are_blotted_out_wherever_they_stand(lines):
    key = auth.generate_key()
    log.log_request(ended(path=f"/v1/{key}/x"))
    logging.getLogger("somelibrary").error("key=%s", key)
    assert key not in "\n".join(lines())
    assert key[:30] not in "\n".join(lines())


def test_mistake_of_ours_is_logged_with_its_traceback(journal):
    failure = errors.InternalFailure("ZeroDivisionError: division by zero")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as exc:
        failure.__cause__ = exc
    log.log_lifecycle(events.StartFailed(HOST, "curl", failure, waiting=1, held_off_s=5.0))
    mistake, start_failed = journal()
    assert HOST in mistake
    assert "1 / 0" in mistake
    assert "event=start_failed" in start_failed


def test_traceback_is_one_line_in_the_journal(journal):
    exception = ValueError("first\nsecond")
    logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=exception)
    (line,) = journal()
    assert line.startswith('<3>msg="Task exception was never retrieved" logger=asyncio traceback="')
    assert r"ValueError: first\nsecond" in line


def test_libraries_stay_quiet_even_at_debug_level(lines):
    for name in ("aiohttp.access", "aiohttp.server", "asyncio", "urllib3.connectionpool", "docker.auth"):
        logging.getLogger(name).info("GET / HTTP/1.1")
    assert lines() == []


def test_level_can_be_changed_without_doubling_the_lines(tmp_path):
    stream = io.StringIO()
    log.setup("info", stream)
    log.setup("warning", stream)
    log.log_lifecycle(events.StopBegan(HOST, StopReason.IDLE))
    log.log_lifecycle(events.Stopped(HOST, StopReason.CRASHED, 1.0, 0))
    assert len(stream.getvalue().splitlines()) == 1


def test_failed_requests_are_warnings(journal):
    log.log_request(ended(status=502, code="upstream_failed"))
    log.log_request(ended(status=404))
    assert [line[:3] for line in journal()] == ["<4>", "<6>"]


def test_stderr_is_where_it_goes_when_nothing_else_is_said(capsys):
    log.setup("info", sys.stderr)
    logging.getLogger("autostart").info("listening on %s", "127.0.0.1:8890")
    assert 'msg="listening on 127.0.0.1:8890"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("plain-value_1./:", "plain-value_1./:"),
        ("", '""'),
        ("two words", '"two words"'),
        ("Größe", '"Größe"'),
        ("a=b", '"a=b"'),
        ("back\\slash", '"back\\\\slash"'),
        (True, "true"),
        (1.0, "1"),
        (0.1239, "0.124"),
        (State.READY, "ready"),
    ],
)
def test_values_are_quoted_only_where_they_have_to_be(value, told):
    assert log.quote(value) == told
