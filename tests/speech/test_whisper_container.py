"""The service as its Dockerfile and compose file make it. The image is built by `.ci/images speech`."""

import os
import time
from pathlib import Path

import httpx
import pytest
import yaml

SERVICE = Path(__file__).parents[2] / "services" / "faster-whisper"
EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGE = "autostart-test/faster-whisper"
_DEADLINE_S = 60


@pytest.fixture(scope="module")
def compose_service():
    return yaml.safe_load((SERVICE / "docker-compose.yml").read_text())["services"]["faster-whisper"]


@pytest.fixture
def container(compose_service, tiny_model):
    """The image with the compose file's health check and volume, and the tiny model mounted."""
    import docker

    client = docker.from_env()
    try:
        client.images.get(IMAGE)
    except docker.errors.ImageNotFound:
        if os.environ.get("AUTOSTART_REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(f"no image {IMAGE}: run .ci/images speech")
    container = client.containers.run(
        IMAGE,
        detach=True,
        ports={"8001/tcp": ("127.0.0.1", None)},
        environment={"WHISPER_MODEL": "/model", "WHISPER_MODEL_NAME": "whisper-tiny"},
        volumes={str(tiny_model): {"bind": "/model", "mode": "ro"}},
        healthcheck={"test": compose_service["healthcheck"]["test"], "interval": 500_000_000},
    )
    yield container
    container.remove(force=True, v=True)
    client.close()


def test_compose_file_publishes_on_loopback_only_and_leaves_starting_to_autostart(compose_service):
    assert compose_service["container_name"] == "faster-whisper"
    assert compose_service["ports"] == ["127.0.0.1:8001:8001"]
    assert compose_service["restart"] == "no"


def test_compose_file_passes_on_only_settings_that_the_server_reads(compose_service):
    shared = SERVICE.parent / "common" / "src" / "speech_common" / "settings.py"
    documented = (SERVICE / "src" / "whisper_server" / "settings.py").read_text() + shared.read_text()
    own = {name for name in compose_service["environment"] if not name.startswith("HF_")}
    assert {name for name in own if f'"{name}"' not in documented} == set()


@pytest.mark.docker
def test_container_becomes_healthy_transcribes_and_stops_cleanly_without_root(container):
    deadline = time.monotonic() + _DEADLINE_S
    while container.attrs["State"].get("Health", {}).get("Status") != "healthy":
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.1)
        container.reload()
    address = container.attrs["NetworkSettings"]["Ports"]["8001/tcp"][0]
    recording = (EXAMPLES / "austen-0890.wav").read_bytes()
    response = httpx.post(
        f"http://127.0.0.1:{address['HostPort']}/v1/audio/transcriptions",
        files={"file": recording},
        timeout=_DEADLINE_S,
    )
    assert "selfish" in response.json()["text"]
    assert container.exec_run("id -u").output.strip() == b"10001"
    assert container.exec_run("touch /cache/model").exit_code == 0
    container.stop(timeout=_DEADLINE_S)
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0
