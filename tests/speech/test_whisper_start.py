"""How the server starts, waits, fails and stops."""

import os
import signal
import socket
import subprocess
import sys

import pytest


@pytest.fixture
def silent_hub():
    """An address that accepts connections and never answers: a download from it lasts until it is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def hub_settings(listener, tmp_path):
    """Look for a model on that hub, which is in no cache."""
    port = listener.getsockname()[1]
    return {
        "WHISPER_MODEL": "tiny",
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(tmp_path),
        "HF_HUB_ETAG_TIMEOUT": "60",
    }


def test_request_that_arrives_during_the_load_is_answered(start_whisper, recording):
    whisper = start_whisper()  # returns when the socket listens, long before the model is loaded
    response = whisper.transcribe({"model": "whisper-1"}, files={"file": recording})
    assert response.status_code == 200
    assert "selfish" in response.json()["text"]


def test_while_loading_it_is_live_and_not_ready_and_a_request_waits_only_so_long(
    start_whisper, silent_hub, tmp_path, recording
):
    whisper = start_whisper(**hub_settings(silent_hub, tmp_path), WHISPER_LOAD_WAIT="50ms")
    ready = whisper.get("/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
    assert whisper.get("/health/live").status_code == 200
    response = whisper.transcribe(files={"file": recording})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_loading")
    assert response.headers["retry-after"] == "5"
    assert response.headers["x-should-retry"] == "false"


def test_stop_during_the_load_is_clean(start_whisper, silent_hub, tmp_path):
    whisper = start_whisper(**hub_settings(silent_hub, tmp_path))
    assert whisper.get("/health/live").status_code == 200
    whisper.process.send_signal(signal.SIGTERM)
    assert whisper.wait_for_exit() == 0
    assert "Traceback" not in whisper.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_at_any_moment_of_the_start_is_clean(start_whisper, number):
    whisper = start_whisper()
    whisper.process.send_signal(number)
    assert whisper.wait_for_exit() == 0
    assert "Traceback" not in whisper.log


def test_stop_lets_a_request_end(start_whisper, recording):
    whisper = start_whisper(SHUTDOWN_TIMEOUT="60s", LOG_LEVEL="DEBUG")
    whisper.wait_until_ready()
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
        connection.sendall(head.encode() + body[:-1])
        whisper.get("/health/live")  # by now the request is being received
        whisper.process.send_signal(signal.SIGTERM)
        connection.sendall(body[-1:])
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"selfish" in answer
    assert whisper.wait_for_exit() == 0


def broken_directory(tiny_model, tmp_path):
    for file in tiny_model.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model.bin").unlink()
    (tmp_path / "model.bin").write_bytes(b"not weights")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("/no/such/directory", "there is no such directory"),
        ("~no-such-user/model", "there is no such directory"),
        ("no-such-size", "neither a directory nor a known size"),
        (lambda _, tmp_path: str(tmp_path), "model.bin, config.json, tokenizer.json missing"),
        (broken_directory, "on cpu as int8"),
        ("tiny", "Put it there, connect to the internet, or set WHISPER_MODEL to the directory"),
        (
            "owner/no-such-model",
            "Put it there, connect to the internet, or set WHISPER_MODEL to the directory",
        ),
    ],
    ids=[
        "no-directory",
        "no-user",
        "no-size",
        "empty-directory",
        "broken-weights",
        "hub-size-offline",
        "hub-name-offline",
    ],
)
def test_model_that_cannot_be_loaded_ends_the_process_with_the_cause(
    start_whisper, tiny_model, tmp_path, model, told
):
    if callable(model):
        model = model(tiny_model, tmp_path)
    whisper = start_whisper(WHISPER_MODEL=model, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "cache"))
    assert whisper.wait_for_exit() == 3
    line = next(line for line in whisper.log.splitlines() if "event=model_failed" in line)
    assert told in line
    assert "Traceback" not in whisper.log


def test_those_who_wait_for_a_load_that_fails_are_told_why(start_whisper, tmp_path, recording):
    whisper = start_whisper(WHISPER_MODEL=str(tmp_path))
    response = whisper.transcribe(files={"file": recording})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")
    assert "model.bin" in response.json()["error"]["message"]
    assert response.headers["x-should-retry"] == "false"
    assert whisper.wait_for_exit() == 3


def test_model_in_the_hubs_cache_is_used_without_the_hub(start_whisper, tiny_model, tmp_path):
    cache = tmp_path / "hub" / "models--Systran--faster-whisper-tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc123")
    (cache / "snapshots").mkdir()
    (cache / "snapshots" / "abc123").symlink_to(tiny_model)
    whisper = start_whisper(
        WHISPER_MODEL="tiny", WHISPER_MODEL_NAME="", HF_HOME=str(tmp_path), HF_ENDPOINT="http://127.0.0.1:9"
    )
    whisper.wait_until_ready()
    names = [model["id"] for model in whisper.get("/v1/models").json()["data"]]
    assert names == ["tiny", "whisper-1"]


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
    ],
)
def test_setting_that_cannot_be_used_is_named(start_whisper, name, value):
    whisper = start_whisper(**{name: value})
    assert whisper.wait_for_exit() == 2
    assert f"{name}='{value}' cannot be used. Accepted: " in whisper.log
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


def test_start_imports_nothing_that_is_not_needed():
    """Ready after 0.8 s depends on it: each of these costs 0.2 s or much more."""
    code = "import sys, whisper_server.api, whisper_server.engine, uvicorn, uvloop; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "transformers", "openai", "onnxruntime", "huggingface_hub.hf_api", "requests", "httpx"}
    assert heavy & set(loaded.split()) == set()


def test_listening_needs_nothing_but_the_settings():
    code = (
        "import sys, whisper_server.__main__\n"
        "assert not {'fastapi', 'starlette', 'uvicorn', 'numpy', 'asyncio', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
