"""The speech server behind the real gateway: a job that goes on keeps it awake, and nothing else does."""

import os
import sys
import wave
from pathlib import Path

import httpx
import pytest
from processes import free_port
from program import HOST, Gateway, running

EXAMPLES = Path(__file__).parents[2] / "examples"
JOIN = 2


@pytest.fixture
def gateway(tmp_path, tiny_model):
    gateway = Gateway(tmp_path)
    port = free_port()
    environment = {
        "PORT": str(port),
        "WHISPER_MODEL": str(tiny_model),
        "WHISPER_THREADS": "1",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "JOB_HOLD": "0s",
    }
    gateway.options["services"] = {
        HOST: {
            "proxyPort": port,
            "readiness": {"path": "/health/ready"},
            "busyPath": "/health/busy",
            "idleTimeout": "1s",
            "runtime": {
                "kind": "process",
                "command": [
                    "sh",
                    "-c",
                    'exec "$0" -m whisper_server 2>"$1"',
                    sys.executable,
                    str(tmp_path / "whisper.log"),
                ],
                "env": environment,
            },
        }
    }
    gateway.write()
    with running(gateway) as gateway:
        yield gateway


@pytest.fixture
def long_recording(tmp_path):
    path = tmp_path / "long.wav"
    with wave.open(str(EXAMPLES / "two-speakers.wav")) as one, wave.open(str(path), "wb") as many:
        many.setparams(one.getparams())
        samples = one.readframes(one.getnframes())
        for _ in range(JOIN):
            many.writeframes(samples)
    return path


def test_a_job_keeps_its_service_awake_and_its_end_lets_it_sleep(gateway, long_recording):
    url = f"http://127.0.0.1:{gateway.port}/v1/audio/transcriptions"
    with long_recording.open("rb") as file:
        accepted = httpx.post(
            url,
            headers={"Host": HOST, "Prefer": "respond-async"},
            data={"batch_size": "1", "beam_size": "10"},
            files={"file": file},
            timeout=60,
        )
    assert accepted.status_code == 202
    assert accepted.headers["location"].startswith("/v1/audio/jobs/")
    gateway.until(lambda: "event=stopped service=whisper.test reason=idle" in gateway.log.read_text())
    told = (gateway.directory / "whisper.log").read_text()
    assert "state=completed" in told, "it was stopped before its job had ended"
    assert told.index("event=job_ended") < told.index("event=stopped")
