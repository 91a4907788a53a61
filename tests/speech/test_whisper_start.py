"""How the server starts, waits, fails and stops."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from speech_common.environment import SettingError
from waiting import block_until
from whisper_server.settings import Settings

# What costs seconds or hundreds of megabytes, and is not needed to transcribe.
HEAVY = {
    *(
        "torch",
        "transformers",
        "openai",
        "onnxruntime",
        "scipy",
        "pandas",
        "requests",
        "httpx",
        "httpx2",
        "aiohttp",
    ),
    *("huggingface_hub.hf_api", "docker", "jiwer"),
}
# What /metrics says when a recording was received: it is worked on, or has been.
TAKEN = re.compile(r'^speech_jobs_(running|total\{state="completed"\}) 1\.0$', re.MULTILINE)
# 80 and 720 today, with those that are looked for and not found.
MOST_TO_LISTEN = 100
MOST_TO_BE_READY = 850


@pytest.fixture
def silent_hub():
    """An address that accepts connections and never answers: a download from it lasts until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(scope="module")
def told(start_whisper):
    """What a server logs until it is ready, with what it imports, as -X importtime does."""
    whisper = start_whisper(PYTHONPROFILEIMPORTTIME="1")
    whisper.wait_until_ready()
    return whisper.log


def imported(log):
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", log, re.MULTILINE))


@pytest.fixture(scope="module")
def bare():
    """What Python imports by itself."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, text=True, check=True
    )
    return imported(done.stderr)


def test_listening_needs_nothing_but_the_settings(told, bare):
    before = imported(told.split("event=listening")[0]) - bare
    ours = {"whisper_server", "speech_common"}
    # Python's own `copy` looks for `org`, Jython's.
    assert {name.split(".")[0] for name in before} - sys.stdlib_module_names - {"org"} == ours
    assert not {"asyncio", "ssl", "email", "http", "json"} & before
    assert len(before) <= MOST_TO_LISTEN


def test_being_ready_needs_no_framework_for_training_and_no_client(told, bare):
    all_of_them = imported(told) - bare
    assert {"ctranslate2", "uvicorn"} <= all_of_them
    assert HEAVY & all_of_them == set()
    assert len(all_of_them) <= MOST_TO_BE_READY


def test_while_loading_it_is_live_and_not_ready_and_a_request_waits_only_so_long_and_a_stop_is_clean(
    start_whisper, silent_hub, tmp_path, brief
):
    port = silent_hub.getsockname()[1]
    whisper = start_whisper(
        WHISPER_MODEL="tiny",
        WHISPER_LOAD_WAIT="50ms",
        HF_ENDPOINT=f"http://127.0.0.1:{port}",
        HF_HOME=str(tmp_path),
        HF_HUB_ETAG_TIMEOUT="60",
        HF_HUB_OFFLINE="0",
    )
    ready = whisper.get("/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
    assert whisper.get("/health/live").status_code == 200
    response = whisper.transcribe(files={"file": brief})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_loading")
    assert response.headers["retry-after"] == "5"
    assert response.headers["x-should-retry"] == "false"
    whisper.process.send_signal(signal.SIGTERM)
    assert whisper.wait_for_exit() == 0
    assert "Traceback" not in whisper.log


def test_stop_at_any_moment_of_the_start_is_clean(start_whisper):
    whisper = start_whisper()
    whisper.process.send_signal(signal.SIGINT)
    assert whisper.wait_for_exit() == 0
    assert "Traceback" not in whisper.log


def test_request_that_arrives_during_the_load_is_answered_even_where_a_stop_follows(start_whisper, recording):
    whisper = start_whisper(SHUTDOWN_TIMEOUT="60s", LOG_LEVEL="DEBUG")
    body = (
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="upload"\r\n\r\n'
        + recording
        + b"\r\n--b--\r\n"
    )
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    host, port = whisper.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        block_until(lambda: TAKEN.search(whisper.get("/metrics").text))
        whisper.process.send_signal(signal.SIGTERM)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"selfish" in answer
    assert whisper.wait_for_exit() == 0


def test_those_who_wait_for_a_load_that_fails_are_told_why(start_whisper, tmp_path, recording):
    whisper = start_whisper(WHISPER_MODEL=str(tmp_path))
    response = whisper.transcribe(files={"file": recording})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")
    assert "model.bin" in response.json()["error"]["message"]
    assert response.headers["x-should-retry"] == "false"
    assert whisper.wait_for_exit() == 3
    assert f"event=model_failed model=whisper-tiny cause='{tmp_path}: model.bin" in whisper.log
    assert "Traceback" not in whisper.log


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("WHISPER_DEVICE", "tpu"),
        ("WHISPER_COMPUTE_TYPE", "int3"),
        ("WHISPER_WORKERS", "0"),
        ("MAX_UPLOAD", "big"),
        ("MAX_UPLOAD", "0.1"),
        ("MAX_UPLOAD", "9" * 400),
        ("MAX_AUDIO", "long"),
        ("SHUTDOWN_TIMEOUT", "9" * 400),
        ("WHISPER_LOAD_WAIT", "soon"),
        ("WHISPER_DOWNLOADS", "all"),
    ],
)
def test_setting_that_cannot_be_used_is_named(name, value):
    with pytest.raises(SettingError) as caught:
        Settings.from_environment({name: value})
    assert str(caught.value).startswith(f"{name}='{value}' cannot be used. Accepted: ")


def test_setting_that_cannot_be_used_ends_the_process(start_whisper):
    whisper = start_whisper(WHISPER_DEVICE="tpu")
    assert whisper.wait_for_exit() == 2
    assert "WHISPER_DEVICE='tpu' cannot be used. Accepted: auto, cpu, cuda." in whisper.log
    assert "Traceback" not in whisper.log


def test_port_that_is_taken_is_named(start_whisper, whisper):
    second = subprocess.run(
        [sys.executable, "-m", "whisper_server"],
        env={**os.environ, "PORT": whisper.url.rsplit(":", 1)[1]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 4
    assert f"event=listen_failed address={whisper.url.removeprefix('http://')}" in second.stderr


def test_client_that_leaves_in_the_middle_of_its_upload_is_only_logged(whisper):
    host, port = whisper.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: multipart/form-data; boundary=b\r\ncontent-length: 1000000\r\n\r\n--b\r\n"
        )
        assert whisper.get("/health/live").status_code == 200
    assert whisper.lines("status=499")
    assert "Traceback" not in whisper.log
