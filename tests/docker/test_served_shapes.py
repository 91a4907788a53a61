"""The whole program before projects of several containers, and containers that are paused rather than stopped."""

import os
import signal
import subprocess
from types import SimpleNamespace

import pytest
from clients import open_stream
from program import HOST, Gateway, running
from stacks import PAIR, WEB

pytestmark = pytest.mark.docker

HEALTHY_DB = """
    environment: {HEALTH_DELAY_S: "1.5"}
    healthcheck: {test: ["CMD", "/bin/health"], interval: 30s}
"""
MIGRATION = """
    environment: {EXIT_CODE: "0", LOG_LINE: "migrated"}
"""


@pytest.fixture
def project(stack, tmp_path):
    """A gateway before a project whose file the test writes."""
    gateway = Gateway(tmp_path)
    service = {"composeDir": str(stack.directory), "proxyPort": stack.port, "stopTimeout": 1}
    gateway.options["services"] = {HOST: service}
    gateway.write()

    def configure(**options) -> None:
        service.update(options)
        gateway.write()

    return SimpleNamespace(gateway=gateway, stack=stack, configure=configure)


def docker(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, capture_output=True)


def count(gateway: Gateway, series: str, **labels: str) -> int:
    told = ",".join(f'{name}="{value}"' for name, value in ({"service": HOST} | labels).items())
    return int(gateway.metrics().partition(f"\nautostart_{series}{{{told}}} ")[2].partition("\n")[0] or 0)


def begun(stack, service: str) -> str:
    return stack.inspect(service)["State"]["StartedAt"]


def test_a_request_waits_for_what_its_service_waits_for_to_be_healthy(project):
    project.stack.write(PAIR.replace("[db]", "{db: {condition: service_healthy}}") + HEALTHY_DB)
    with running(project.gateway) as gateway:
        assert gateway.get("/").status_code == 200
        well = project.stack.run_in("db", "stat", "-c", "%Y", "/run/healthy")
        assert well <= project.stack.run_in("web", "stat", "-c", "%Y", "/run")


def test_a_migration_runs_before_every_start_and_its_end_ends_nothing(project):
    text = PAIR.replace("[db]", "{db: {condition: service_completed_successfully}}") + MIGRATION
    project.stack.write(text)
    with running(project.gateway) as gateway:
        for runs in (1, 2):
            assert gateway.get("/").status_code == 200
            assert project.stack.states() == {"web": "running", "db": "exited"}
            assert project.stack.client.logs(project.stack.id_of("db")) == b"migrated\n" * runs
            assert begun(project.stack, "db") < begun(project.stack, "web")
            assert gateway.cli("stop", HOST).returncode == 0
        assert count(gateway, "stops_total", reason="crashed") == 0


def test_a_migration_that_fails_is_told_to_the_caller_and_starts_nothing_else(project):
    project.stack.write(
        PAIR.replace("[db]", "{db: {condition: service_completed_successfully}}")
        + MIGRATION.replace('"0"', '"3"')
    )
    with running(project.gateway) as gateway:
        error = gateway.get("/").json()["error"]
        assert error["code"] == "start_failed"
        assert "db" in error["message"]
        assert "code 3" in error["message"]
        assert "migrated" in gateway.cli("explain", HOST).stdout
        assert project.stack.states()["web"] != "running"


def test_a_container_that_does_not_matter_may_crash_in_the_middle_of_a_request(project):
    project.stack.write(PAIR.replace("depends_on: [db]", ""))
    project.configure(containers=["web"])
    with running(project.gateway) as gateway:
        client = open_stream(gateway)
        os.kill(project.stack.pid_of("db"), signal.SIGKILL)
        gateway.until(lambda: project.stack.states()["db"] == "exited")
        seen = client.lines
        gateway.until(lambda: client.lines > seen)
        assert gateway.get("/").status_code == 200
        assert gateway.state() == "ready"
        assert gateway.cli("stop", HOST, "--force").returncode == 0
        client.join(30)
        assert gateway.get("/").status_code == 200
        assert project.stack.states() == {"web": "running", "db": "running"}


def test_what_runs_in_part_when_autostart_starts_is_completed_by_the_next_request(project):
    project.stack.write(PAIR)
    project.stack.compose("up", "-d", "db")
    db = project.stack.pid_of("db")
    with running(project.gateway) as gateway:
        assert gateway.state() == "stopped"
        assert gateway.get("/").status_code == 200
        assert project.stack.pid_of("db") == db


def test_what_runs_in_part_when_autostart_starts_is_stopped_once_it_is_idle(project):
    project.stack.write(PAIR)
    project.stack.compose("up", "-d", "db")
    project.configure(idleTimeout=1)
    with running(project.gateway) as gateway:
        gateway.until(lambda: project.stack.states() == {"db": "exited"})
        assert gateway.state() == "stopped"


def test_what_a_stop_of_one_container_by_hand_leaves_is_stopped_once_it_is_idle(project):
    project.stack.write(PAIR)
    project.configure(idleTimeout=2)
    with running(project.gateway) as gateway:
        gateway.get("/")
        docker("stop", project.stack.id_of("web"))
        gateway.until(lambda: project.stack.states() == {"web": "exited", "db": "exited"})
        assert count(gateway, "stops_total", reason="external") == 1


# --- stopMethod: pause -----------------------------------------------------------------------------------


HEALTH = '    healthcheck: {test: ["CMD", "/bin/health"], interval: 200ms, timeout: 200ms, retries: 1}\n'


@pytest.fixture
def paused(project):
    """A gateway whose service was used once and is paused now."""
    project.stack.write(WEB + HEALTH)
    project.configure(stopMethod="pause")
    with running(project.gateway) as gateway:
        assert gateway.get("/").status_code == 200
        project.pid = project.stack.pid_of("web")
        assert gateway.cli("stop", HOST).returncode == 0
        yield project


def test_a_request_thaws_what_is_paused_with_all_its_memory(project):
    project.stack.write(WEB + HEALTH)
    project.configure(stopMethod="pause", idleTimeout=1)
    with running(project.gateway) as gateway:
        assert gateway.get("/").status_code == 200
        pid = project.stack.pid_of("web")
        gateway.until(lambda: project.stack.states() == {"web": "paused"} and gateway.state() == "stopped")
        assert count(gateway, "stops_total", reason="idle") == 1
        assert gateway.get("/").status_code == 200
        assert project.stack.pid_of("web") == pid


def test_what_a_person_thaws_is_taken_over_and_a_person_pauses_is_thawed_by_the_next_request(paused):
    web = paused.stack.id_of("web")
    docker("unpause", web)
    paused.gateway.until(lambda: paused.gateway.state() == "ready")
    assert count(paused.gateway, "starts_total", result="adopted") == 1
    docker("pause", web)
    paused.gateway.until(lambda: paused.gateway.state() == "stopped")
    assert count(paused.gateway, "stops_total", reason="external") == 1
    assert paused.gateway.get("/").status_code == 200
    assert paused.stack.pid_of("web") == paused.pid


@pytest.mark.parametrize("words", [("stop",), ("kill",), ("rm", "--force")], ids=" ".join)
def test_what_a_person_ends_while_it_is_paused_starts_anew(paused, words):
    docker(*words, paused.stack.id_of("web"))
    assert paused.gateway.get("/").status_code == 200
    assert paused.stack.pid_of("web") != paused.pid
    assert count(paused.gateway, "stops_total", reason="crashed") == 0


def test_what_is_paused_when_autostart_starts_stays_so_until_a_request_thaws_it(paused):
    paused.gateway.end()
    paused.gateway.start()
    assert (paused.gateway.state(), paused.stack.states()) == ("stopped", {"web": "paused"})
    assert paused.gateway.get("/").status_code == 200
    assert paused.stack.pid_of("web") == paused.pid
