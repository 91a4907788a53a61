"""The compose files, `.env.example` and the Dockerfile: what they allow, and that they speak of the same settings."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

SERVICE = Path(__file__).parents[2] / "services" / "faster-whisper"
FILES = ("docker-compose.yml", "docker-compose.gpu.yml")


def service(name):
    return yaml.safe_load((SERVICE / name).read_text())["services"]["faster-whisper"]


def test_container_may_write_nothing_but_its_cache_and_uploads():
    compose = service("docker-compose.yml")
    assert compose["read_only"] is True
    assert compose["cap_drop"] == ["ALL"]
    assert compose["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[-1] for mount in compose["volumes"]] == ["/cache", "ro", "/tmp"]
    assert not {"privileged", "cap_add", "user", "network_mode", "pid"} & set(compose)


def test_example_names_every_variable_with_its_default_and_no_other():
    defaults = {}
    for name in FILES:
        defaults |= dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (SERVICE / name).read_text()))
    example = dict(re.findall(r"^#(\w+)=(.*)$", (SERVICE / ".env.example").read_text(), re.MULTILINE))
    assert example.pop("COMPOSE_FILE") == ":".join(FILES)
    assert example == defaults


def test_every_setting_of_the_server_can_be_made_in_the_compose_file():
    source = (SERVICE / "src" / "whisper_server" / "settings.py").read_text()
    read = set(re.findall(r'"((?:WHISPER|MAX|JOB|API|CORS|LOG|HOST|PORT|SHUTDOWN)\w*)"', source))
    # The address and the port are the container's own.
    assert read - {"HOST", "PORT"} <= set(service("docker-compose.yml")["environment"])


def test_gpu_file_reserves_a_device_and_decodes_in_float16():
    gpu = service("docker-compose.gpu.yml")
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    # A count in quotes is refused by the engine, and what docker-compose 1.29 makes of a variable is in quotes.
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert gpu["build"]["args"] == {"VARIANT": "cuda"}
    assert gpu["environment"]["WHISPER_DEVICE"] == "cuda"
    assert "float16" in gpu["environment"]["WHISPER_COMPUTE_TYPE"]
    assert gpu["image"] != service("docker-compose.yml")["image"]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose")
@pytest.mark.parametrize("count", [1, 2])
def test_docker_compose_reads_the_files(count):
    chosen = [part for name in FILES[:count] for part in ("-f", name)]
    done = subprocess.run(
        ["docker-compose", *chosen, "config", "--quiet"], cwd=SERVICE, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_image_runs_as_nobody_in_particular_by_number():
    dockerfile = (SERVICE / "Dockerfile").read_text()
    users = re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE)
    assert users == ["10001:10001"]
    assert dockerfile.index("USER 10001") > dockerfile.index("FROM ${BASE}")


def test_image_for_the_cpu_has_no_cuda_libraries():
    assert "nvidia" not in (SERVICE / "requirements.lock").read_text()
    assert re.search(r"cpu\) locks=\"-r /build/requirements.lock\" ;;", (SERVICE / "Dockerfile").read_text())
    assert service("docker-compose.yml")["build"]["args"] == {"VARIANT": "cpu"}
