"""What engines from 20.10 to 29 say when they cannot, and what it is taken for."""

import pytest

from autostart.errors import CommandNotFound, EngineForbidden, EngineUnreachable, ImageMissing, PortTaken
from autostart.runtime.compose.failures import recognise, recognise_engine_trouble

ADDRESS = "unix:///var/run/docker.sock"


DRIVER_FAILED = "driver failed programming external connectivity on endpoint web (fec3162fb1257d08)"
OCI_FAILED = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process"


@pytest.mark.parametrize(
    "text",
    [
        f"{DRIVER_FAILED}: Bind for 127.0.0.1:8001 failed: port is already allocated",
        f"{DRIVER_FAILED}: Bind for :::8001 failed: port is already allocated",
        f"{DRIVER_FAILED}: Error starting userland proxy: listen tcp4 127.0.0.1:8001: bind: address already in use",
        f"{DRIVER_FAILED}: failed to bind host port for 127.0.0.1:8001:172.18.0.2:80/tcp: address already in use",
        f"{DRIVER_FAILED}: failed to bind host port 127.0.0.1:8001/tcp: address already in use",
    ],
    ids=["allocated", "ipv6", "userland-proxy", "27", "28"],
)
def test_a_taken_port_is_recognised(text):
    failure = recognise(text)
    assert isinstance(failure, PortTaken)
    assert failure.port == 8001


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("No such image: registry.example.org/some/image:latest", "registry.example.org/some/image:latest"),
        ("no such image: a/b", "a/b"),
    ],
)
def test_a_missing_image_is_recognised(text, image):
    failure = recognise(text)
    assert isinstance(failure, ImageMissing)
    assert failure.image == image


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (
            f'{OCI_FAILED}: exec: "/bin/nope": stat /bin/nope: no such file or directory: unknown',
            "/bin/nope",
        ),
        (
            'OCI runtime create failed: exec: "uvicorn": executable file not found in $PATH: unknown',
            "uvicorn",
        ),
        ('exec: "/start.sh": permission denied: unknown', "/start.sh"),
    ],
)
def test_a_program_that_the_image_lacks_is_recognised(text, program):
    failure = recognise(text)
    assert isinstance(failure, CommandNotFound)
    assert failure.command == program
    assert "compose file" in failure.hint


def test_what_is_not_recognised_is_left_to_others():
    assert recognise('could not select device driver "nvidia" with capabilities: [[gpu]]') is None


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", EngineUnreachable),
        ("permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock", EngineForbidden),
        ("ERROR: Couldn't connect to Docker daemon at http+docker://localhost - is it running?", EngineUnreachable),
        ("Error response from daemon: pull access denied", type(None)),
    ],
)  # fmt: skip
def test_composes_words_about_the_engine_are_recognised(line, kind):
    assert type(recognise_engine_trouble(["other", line], ADDRESS)) is kind
