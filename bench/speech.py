"""From asleep to the first transcript of a recording of 5.3 s, with whisper-tiny, split into phases.

`runtime` is until the process (or the container) was started, `ready` until the model was loaded and the
service said so, `answer` the rest: the transcription, and what passing everything on takes.
"""

import contextlib
import http.client
import json
import sys
import time
import uuid
from typing import Any

import yaml

from bench.engine import SPEECH_IMAGE, Project, connect
from bench.stand import (
    HOST,
    LIMIT_S,
    ROOT,
    Failed,
    Gateway,
    Missing,
    Stand,
    free_port,
    model_directory,
    process_service,
)
from bench.table import Row, median, skipped

TITLE = "Speech: asleep to the transcript of a 5 s recording (whisper-tiny)"

_RECORDING = ROOT / "examples" / "austen-0890.wav"
_HEARD = "selfish"
_PROCESS_S, _CONTAINER_S = 2.5, 3.5
_INSIDE = 8001
_PATH = {"path": "/health/ready"}
_CONTAINERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("container, readiness path", _PATH),
    ("container, health check only", {}),
)


def measure(runs: int = 5) -> list[Row]:
    """Return the rows; each is the median of `runs` wakes. Raises Missing where there is no model."""
    model = str(model_directory())
    rows = measure_process(model, runs)
    try:
        engine = connect(SPEECH_IMAGE)
    except Missing as exc:
        return [*rows, skipped("container", str(exc))]
    with contextlib.closing(engine):
        for name, readiness in _CONTAINERS:
            with Stand() as stand:
                project = Project(engine, stand.directory, _container(model), _INSIDE)
                stand.enter(project.existing())
                gateway = stand.gateway({HOST: project.config(readiness=readiness)})
                rows += _rows(name, gateway, runs, _CONTAINER_S)
    return rows


def measure_process(model: str, runs: int) -> list[Row]:
    """Return the rows of the service as a process."""
    with Stand() as stand:
        port = free_port()
        service = process_service(port, [sys.executable, "-m", "whisper_server"], readiness=_PATH)
        service["runtime"]["env"] = {"PORT": str(port), "WHISPER_MODEL": model}
        return _rows("process", stand.gateway({HOST: service}), runs, _PROCESS_S)


def _container(model: str) -> dict[str, Any]:
    """Return the service as its own compose file has it, but for the model, which is there already."""
    text = (ROOT / "services" / "faster-whisper" / "docker-compose.yml").read_text()
    health = yaml.safe_load(text)["services"]["faster-whisper"]["healthcheck"]
    return {
        "image": SPEECH_IMAGE,
        "environment": {"WHISPER_MODEL": "/model", "HF_HUB_OFFLINE": "1"},
        "volumes": [f"{model}:/model:ro"],
        "healthcheck": health,
    }


def _rows(name: str, gateway: Gateway, runs: int, limit_s: float) -> list[Row]:
    """Wake it once uncounted (creating, and reading the files from the disk), then `runs` times."""
    found = []
    for _ in range(runs + 1):
        total_s = _transcribe(gateway)
        phases = gateway.facts()["last_start"]
        warm_s = _transcribe(gateway)
        found.append((total_s, phases["runtime_s"], phases["ready_s"], warm_s))
        gateway.stop()
    total_s, runtime_s, ready_s, warm_s = (median(column) for column in zip(*found[1:], strict=True))
    slowest_s = max(run[0] for run in found[1:])
    return [
        Row(f"{name}: to the transcript", total_s, "s", limit_s, f"slowest of {runs}: {slowest_s:.2f} s"),
        Row(f"{name}: runtime", runtime_s, "s"),
        Row(f"{name}: ready", ready_s, "s"),
        Row(
            f"{name}: answer", total_s - runtime_s - ready_s, "s", note=f"the next one, warm: {warm_s:.2f} s"
        ),
    ]


def _transcribe(gateway: Gateway) -> float:
    """Post the recording; return how many seconds its transcript took."""
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{_RECORDING.name}"\r\n\r\n'
    body = head.encode() + _RECORDING.read_bytes() + f"\r\n--{mark}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=LIMIT_S)
    begun = time.monotonic()
    try:
        headers = {"Host": HOST, "Content-Type": f"multipart/form-data; boundary={mark}"}
        connection.request("POST", "/v1/audio/transcriptions", body, headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    took_s = time.monotonic() - begun
    if response.status != 200 or _HEARD not in json.loads(text)["text"]:
        raise Failed(f"no transcript: {response.status} {text[:2000]!r}")
    return took_s
