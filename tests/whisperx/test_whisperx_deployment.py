"""WhisperX's compose files, `.env.example`, Dockerfile and locks: what they allow, and that they speak of the same things."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from whisperx_server.settings import Settings

SERVICES = Path(__file__).parents[2] / "services"
SERVICE = SERVICES / "whisperx"
REQUIREMENTS = Path(__file__).parents[2] / "requirements"
FILES = ("docker-compose.yml", "docker-compose.gpu.yml")
LOCKS = (
    SERVICE / "requirements.lock",
    SERVICE / "requirements-cuda.lock",
    REQUIREMENTS / "whisperx-test.lock",
)
COMPOSE_COMMANDS = [
    pytest.param(
        command, marks=pytest.mark.skipif(shutil.which(command[0]) is None, reason=f"no {command[0]}")
    )
    for command in (["docker-compose"], ["docker", "compose"])
]


def service(name):
    return yaml.safe_load((SERVICE / name).read_text())["services"]["whisperx"]


def locked(lock):
    """The packages of a lock, with their versions."""
    return dict(re.findall(r"^([\w.-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE))


def test_compose_file_publishes_on_loopback_only_and_leaves_starting_to_autostart():
    compose = service("docker-compose.yml")
    assert compose["container_name"] == "whisperx"
    assert compose["ports"] == ["127.0.0.1:8002:8002"]
    assert compose["restart"] == "no"


def test_container_may_write_nothing_but_its_cache_and_uploads():
    compose = service("docker-compose.yml")
    assert compose["read_only"] is True
    assert compose["cap_drop"] == ["ALL"]
    assert compose["security_opt"] == ["no-new-privileges:true"]
    written = [mount.split(":")[-1] for mount in compose["volumes"] if not mount.endswith(":ro")]
    assert written == ["/cache", "/tmp"]
    assert not {"privileged", "cap_add", "user", "network_mode", "pid"} & set(compose)


def test_example_names_every_variable_with_its_default_and_no_other():
    defaults = {}
    for name in FILES:
        defaults |= dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (SERVICE / name).read_text()))
    example = dict(re.findall(r"^#(\w+)=(.*)$", (SERVICE / ".env.example").read_text(), re.MULTILINE))
    assert example.pop("COMPOSE_FILE") == ":".join(FILES)
    assert example == defaults


def settings_of_the_server():
    """Every variable that a field of the settings is documented with."""
    sources = [SERVICE / "src/whisperx_server/settings.py", SERVICES / "common/src/speech_common/settings.py"]
    text = "".join(source.read_text() for source in sources)
    named = set(re.findall(r'^    """([A-Z_]+):', text, re.MULTILINE)) | {"API_KEYS_FILE"}
    assert len(named) > len(dataclasses.fields(Settings))
    return named


def test_every_setting_of_the_server_can_be_made_in_the_compose_file():
    # The address and the port are the container's own.
    assert settings_of_the_server() - {"HOST", "PORT"} <= set(service("docker-compose.yml")["environment"])


def test_compose_files_pass_on_only_settings_that_the_server_reads():
    passed = set().union(*(service(name)["environment"] for name in FILES))
    assert passed - settings_of_the_server() == {"HF_HUB_OFFLINE", "NVIDIA_DRIVER_CAPABILITIES"}


def test_readme_has_every_setting():
    text = (SERVICE / "README.md").read_text()
    assert {name for name in settings_of_the_server() if f"`{name}`" not in text} == set()


def test_gpu_file_reserves_a_device_and_decodes_in_float16():
    gpu = service("docker-compose.gpu.yml")
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    # A count in quotes is refused by the engine, and what docker-compose 1.29 makes of a variable is in quotes.
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert gpu["build"]["args"] == {"VARIANT": "cuda"}
    assert gpu["environment"]["WHISPER_DEVICE"] == "cuda"
    assert "float16" in gpu["environment"]["WHISPER_COMPUTE_TYPE"]
    assert gpu["image"] != service("docker-compose.yml")["image"]


@pytest.mark.parametrize("command", COMPOSE_COMMANDS)
@pytest.mark.parametrize("count", [1, 2])
def test_compose_reads_the_files(command, count):
    chosen = [part for name in FILES[:count] for part in ("-f", name)]
    done = subprocess.run(
        [*command, *chosen, "config", "--quiet"], cwd=SERVICE, capture_output=True, timeout=60
    )
    if command == ["docker", "compose"] and b"is not a docker command" in done.stderr:
        pytest.skip("no docker compose v2")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_image_runs_as_nobody_in_particular_by_number():
    dockerfile = (SERVICE / "Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["10001:10001"]
    assert dockerfile.index("USER 10001") > dockerfile.index("FROM ${BASE}")


def test_build_sees_what_the_dockerfile_copies():
    seen = re.findall(r"^!(.+)$", (SERVICES / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (SERVICE / "Dockerfile").read_text(), re.MULTILINE)
    for path in " ".join(copied).split():
        assert path.rstrip("/") in seen
        assert list(SERVICES.glob(path)), path


def test_lock_for_the_cpu_has_no_cuda_and_the_other_has_nothing_else():
    cpu, cuda, _ = map(locked, LOCKS)
    assert {name for name in cpu if name.startswith(("nvidia", "triton"))} == set()
    assert {name for name in cuda if not name.startswith(("nvidia-", "triton"))} == set()
    assert {"nvidia-cublas-cu12", "nvidia-cudnn-cu12", "nvidia-cuda-runtime-cu12"} <= set(cuda)


def test_tests_hear_with_the_versions_of_the_image():
    image, _, tests = map(locked, LOCKS)
    assert {name: version for name, version in tests.items() if name in image} == image


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_have_hashes_and_no_addresses(lock):
    text = lock.read_text()
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=sha256:")
    assert len(re.findall(r"^\S+==.* \\$", text, re.MULTILINE)) == len(locked(lock))
