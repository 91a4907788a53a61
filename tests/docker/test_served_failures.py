"""The whole program before containers that cannot start, die or fall ill: what the caller, the log and the metrics say."""

import json
import os
import signal
import socket
import subprocess
from types import SimpleNamespace

import pytest
from clients import open_stream
from program import HOST, Gateway, running
from stacks import BACKEND, WEB

pytestmark = pytest.mark.docker

OTHER = "other.test"
SERVES_AND_EATS_WHEN_TOLD = """
    mem_limit: 16m
    command:
    - /bin/sh
    - -c
    - |
      httpd -p 8080 -h /www
      while [ ! -e /hungry ]; do sleep 0.05; done
      exec tail /dev/zero
"""


@pytest.fixture
def project(stack, tmp_path):
    """A gateway before a project whose file the test writes; its callers are told everything."""
    gateway = Gateway(tmp_path)
    gateway.options["services"] = {HOST: service(stack)}
    gateway.write()
    return SimpleNamespace(gateway=gateway, web=stack.write(WEB))


def service(stack, **options) -> dict:
    return {
        "composeDir": str(stack.directory),
        "proxyPort": stack.port,
        "startTimeout": 300,
        "failureDetails": "log",
        **options,
    }


def count(gateway: Gateway, series: str, host: str = HOST, **labels: str) -> int:
    told = ",".join(f'{name}="{value}"' for name, value in ({"service": host} | labels).items())
    return int(gateway.metrics().partition(f"\nautostart_{series}{{{told}}} ")[2].partition("\n")[0] or 0)


def docker(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, capture_output=True)


def refused(gateway: Gateway, code: str, host: str = HOST) -> dict:
    """Ask, and return what the refusal says."""
    answer = gateway.get("/", host)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, code)
    return answer.json()


def test_want_of_memory_in_the_middle_of_a_request_is_told_as_such(project):
    project.web.write(WEB + SERVES_AND_EATS_WHEN_TOLD)
    with running(project.gateway) as gateway:
        client = open_stream(gateway)
        project.web.run_in("web", "touch", "/hungry")
        client.join(30)
        assert client.cut is True
        gateway.until(lambda: count(gateway, "stops_total", reason="crashed") == 1)
        assert "out_of_memory=true" in gateway.log.read_text().lower()
        assert "memory" in refused(gateway, "start_held_off")["error"]["message"]
        assert "(cause: out_of_memory)" in gateway.cli("explain", HOST).stdout


def test_want_of_memory_during_the_start_is_told_as_such(project):
    project.web.write(WEB + '    mem_limit: 16m\n    environment: {EAT_MEMORY: "1", LOG_LINE: loading}\n')
    with running(project.gateway) as gateway:
        told = refused(gateway, "start_failed")
        assert "memory" in told["error"]["message"]
        assert "loading" in json.dumps(told)
        assert count(gateway, "start_failures_total", cause="out_of_memory") == 1


def test_an_exit_during_the_start_is_told_with_code_and_log_long_before_the_start_has_had_its_time(project):
    project.web.write(
        WEB + '    environment: {EXIT_CODE: "7", START_DELAY_S: "0.3", LOG_LINE: "cannot open /models"}\n'
    )
    with running(project.gateway) as gateway:
        told = refused(gateway, "start_failed")  # the caller's patience is a tenth of startTimeout
        assert "code 7" in told["error"]["message"]
        assert "cannot open /models" in json.dumps(told)
        assert "cannot open /models" in gateway.log.read_text()
        assert count(gateway, "start_failures_total", cause="exited") == 1


def test_what_falls_ill_is_told_in_the_log_and_goes_on_being_served(project):
    project.web.write(WEB + '    healthcheck: {test: ["CMD", "/bin/health"], interval: 200ms, retries: 1}\n')
    with running(project.gateway) as gateway:
        assert gateway.get("/cgi-bin/unwell?gpu-lost").status_code == 200
        gateway.until(lambda: f"event=health service={HOST} change=unhealthy" in gateway.log.read_text())
        assert "own health check says no" in gateway.cli("explain", HOST).stdout
        assert gateway.get("/").status_code == 200
        project.web.run_in("web", "rm", "/run/unwell")
        ill = f"event=health service={HOST} change=unhealthy"  # it was told healthy before, too
        well = f"event=health service={HOST} change=healthy"
        gateway.until(lambda: well in gateway.log.read_text().rpartition(ill)[2])
        assert "own health check says no" not in gateway.cli("explain", HOST).stdout
        assert gateway.state() == "ready"


def test_a_removed_image_keeps_only_what_has_no_container_from_starting(project):
    image = f"127.0.0.1:1/{project.web.name}"  # a registry where nobody answers
    docker("tag", BACKEND, image)
    try:
        project.web.write(WEB.replace(BACKEND, image))
        with running(project.gateway) as gateway:
            gateway.get("/")
            assert gateway.cli("stop", HOST).returncode == 0
            docker("rmi", "--force", image)
            assert gateway.get("/").status_code == 200
            assert gateway.cli("stop", HOST).returncode == 0
            docker("rm", project.web.id_of("web"))
            assert image in refused(gateway, "start_failed")["error"]["message"]
            assert count(gateway, "start_failures_total", cause="image_missing") == 1
            docker("tag", BACKEND, image)
            assert gateway.cli("start", HOST).returncode == 0
            assert gateway.get("/").status_code == 200
    finally:
        subprocess.run(["docker", "rmi", image], capture_output=True, check=False)


def test_a_taken_port_is_named_and_works_once_it_is_free(project):
    with running(project.gateway) as gateway:
        with socket.socket() as other:
            other.bind(("127.0.0.1", project.web.port))
            other.listen()
            assert str(project.web.port) in refused(gateway, "start_failed")["error"]["message"]
        assert count(gateway, "start_failures_total", cause="port_taken") == 1
        assert gateway.cli("start", HOST).returncode == 0
        assert gateway.get("/").status_code == 200


def test_a_port_that_another_services_container_has_is_named_and_works_once_that_one_sleeps(
    project, new_stack
):
    other = new_stack().write(WEB)
    other.write(other.text().replace('"]', f'", "127.0.0.1:{project.web.port}:8081"]'))
    project.gateway.options["services"][OTHER] = service(other)
    project.gateway.write()
    with running(project.gateway) as gateway:
        gateway.get("/")
        assert str(project.web.port) in refused(gateway, "start_failed", OTHER)["error"]["message"]
        assert count(gateway, "start_failures_total", OTHER, cause="port_taken") == 1
        assert gateway.get("/").status_code == 200
        assert gateway.cli("stop", HOST).returncode == 0
        assert gateway.cli("start", OTHER).returncode == 0
        assert gateway.get("/", OTHER).status_code == 200


@pytest.mark.parametrize("names_it", [True, False], ids=["named", "unnamed"])
def test_a_container_name_that_another_project_has_is_told_and_that_project_is_never_touched(
    project, new_stack, names_it
):
    name = f"{project.web.name}-web"
    other = new_stack().write(WEB.replace("{name}-web", name))
    options = {"containers": [name]} if names_it else {}
    project.gateway.options["services"] = {
        HOST: service(project.web, **options),
        OTHER: service(other, **options),
    }
    project.gateway.write()
    with running(project.gateway) as gateway:
        gateway.get("/")
        pid = project.web.pid_of("web")
        assert "already in use" in refused(gateway, "start_failed", OTHER)["error"]["message"]
        assert gateway.state(OTHER) == "failed"
        gateway.cli("stop", OTHER)
        gateway.cli("stop", OTHER, "--force")
        assert (gateway.state(), project.web.pid_of("web")) == ("ready", pid)
        assert gateway.get("/").status_code == 200
        os.kill(pid, signal.SIGKILL)
        gateway.until(lambda: gateway.state() == "failed")
        assert count(gateway, "stops_total", OTHER, reason="crashed") == 0
