"""The whole program before real containers: what people do to them by hand while requests run, and restarts."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from clients import open_stream
from program import HOST, Gateway, running

pytestmark = pytest.mark.docker


@pytest.fixture
def project(web, tmp_path):
    """A gateway before the project `web`; its own directory is the test's."""
    gateway = Gateway(tmp_path)
    gateway.options["services"] = {HOST: {"composeDir": str(web.directory), "proxyPort": web.port}}
    gateway.write()
    return SimpleNamespace(gateway=gateway, web=web)


def facts(gateway: Gateway) -> dict:
    return json.loads(gateway.cli("status", HOST, "--json").stdout)


def stops(gateway: Gateway, reason: str) -> int:
    series = f'autostart_stops_total{{service="{HOST}",reason="{reason}"}} '
    return int(gateway.metrics().partition(series)[2].partition("\n")[0])


def starts(gateway: Gateway, result: str) -> int:
    series = f'autostart_starts_total{{service="{HOST}",result="{result}"}} '
    return int(gateway.metrics().partition(series)[2].partition("\n")[0])


def kept_clocks(gateway: Gateway) -> str:
    file = gateway.directory / "state.json"
    return file.read_text() if file.exists() else ""


def docker(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, capture_output=True)


BY_HAND: dict[str, Callable] = {
    "docker-kill": lambda web: docker("kill", web.id_of("web")),
    "docker-stop": lambda web: docker("stop", "--time", "5", web.id_of("web")),
    "docker-rm": lambda web: docker("rm", "--force", web.id_of("web")),
    "compose-stop": lambda web: web.compose("stop"),
    "compose-down": lambda web: web.compose("down"),
}


@pytest.mark.parametrize("act", BY_HAND.values(), ids=BY_HAND)
def test_an_end_by_hand_cuts_the_open_request_visibly_and_the_next_one_starts_again(project, act):
    with running(project.gateway) as gateway:
        client = open_stream(gateway)
        act(project.web)
        client.join(30)
        assert client.cut is True
        gateway.until(lambda: gateway.state() == "stopped")
        assert stops(gateway, "external") == 1
        assert gateway.get("/").status_code == 200


def test_a_kill_that_nobody_asked_docker_for_is_a_crash_told_to_the_next_one_who_starts_it_by_hand(project):
    with running(project.gateway) as gateway:
        client = open_stream(gateway)
        os.kill(project.web.pid_of("web"), signal.SIGKILL)
        client.join(30)
        assert client.cut is True
        gateway.until(lambda: stops(gateway, "crashed") == 1)
        assert gateway.get("/").json()["error"]["code"] == "start_held_off"
        assert gateway.cli("start", HOST).returncode == 0
        assert gateway.get("/").status_code == 200


@pytest.mark.parametrize("words", [("up", "-d"), ("start",)], ids=["up", "start"])
def test_what_a_person_starts_is_taken_as_it_is_and_sleeps_when_it_is_idle(project, words):
    project.gateway.options["services"][HOST]["idleTimeout"] = 2
    project.gateway.write()
    project.web.compose("up", "--no-start")
    with running(project.gateway) as gateway:
        assert gateway.state() == "stopped"
        project.web.compose(*words)
        gateway.until(lambda: gateway.state() == "ready")
        assert 'result="succeeded"} 1' not in gateway.metrics()
        gateway.until(lambda: project.web.states() == {"web": "exited"})
        gateway.until(lambda: stops(gateway, "idle") == 1)


def edit_and_bring_up(web) -> None:
    web.write(web.text() + '    environment: {COLOUR: "blue"}\n')
    web.compose("up", "-d")


AGAIN: dict[str, Callable] = {
    "docker-restart": lambda web: docker("restart", "--time", "1", web.id_of("web")),
    "compose-restart": lambda web: web.compose("restart", "--timeout", "1"),
    "compose-up-recreates": lambda web: web.compose("up", "-d", "--force-recreate", "--timeout", "1"),
    "compose-up-after-an-edit": edit_and_bring_up,
}


@pytest.mark.parametrize("act", AGAIN.values(), ids=AGAIN)
def test_what_a_person_starts_again_cuts_the_open_request_and_is_followed_without_a_start_of_ours(
    project, act
):
    with running(project.gateway) as gateway:
        client = open_stream(gateway)
        before = project.web.pid_of("web")
        act(project.web)
        client.join(30)
        assert client.cut is True
        after = project.web.pid_of("web")
        gateway.until(lambda: gateway.state() == "ready")
        assert gateway.get("/").status_code == 200
        assert project.web.pid_of("web") == after != before
        assert (stops(gateway, "external"), stops(gateway, "crashed")) == (1, 0)
        assert starts(gateway, "succeeded") == 1


UNHARMED: dict[str, Callable] = {
    "compose-up": lambda web: web.compose("up", "-d"),
    "docker-update": lambda web: docker("update", "--cpu-shares", "512", web.id_of("web")),
    "docker-rename": lambda web: docker("rename", web.id_of("web"), f"{web.name}-renamed"),
    "docker-kill-hup": lambda web: docker("kill", "--signal", "WINCH", web.id_of("web")),
    "pause-and-unpause": lambda web: (
        docker("pause", web.id_of("web")),
        docker("unpause", web.id_of("web")),
    ),
}


@pytest.mark.parametrize("act", UNHARMED.values(), ids=UNHARMED)
def test_what_ends_no_container_cuts_no_request(project, act):
    with running(project.gateway) as gateway:
        client = open_stream(gateway)
        before = project.web.pid_of("web")
        act(project.web)
        seen = client.lines
        gateway.until(lambda: client.lines > seen and gateway.state() == "ready")
        assert gateway.get("/").status_code == 200
        assert (project.web.pid_of("web"), client.cut) == (before, None)
        assert starts(gateway, "succeeded") == 1
        docker("rm", "--force", project.web.id_of("web"))
        client.join(30)


def test_a_network_that_is_taken_from_a_container_and_given_back_cuts_nothing(project):
    with running(project.gateway) as gateway:
        client = open_stream(gateway)
        container, network = project.web.id_of("web"), f"{project.web.name}_default"
        docker("network", "disconnect", network, container)
        with ThreadPoolExecutor() as thread:
            waiting = thread.submit(gateway.get, "/")
            gateway.until(lambda: facts(gateway)["in_flight"] == 2)
            docker("network", "connect", network, container)
            assert waiting.result().status_code == 200
        seen = client.lines
        gateway.until(lambda: client.lines > seen)
        assert (gateway.state(), starts(gateway, "succeeded")) == ("ready", 1)
        docker("rm", "--force", container)
        client.join(30)


def test_a_restart_by_hand_is_followed(project):
    with running(project.gateway) as gateway:
        gateway.get("/")
        before = project.web.pid_of("web")
        docker("restart", "--time", "1", project.web.id_of("web"))
        gateway.until(lambda: gateway.state() == "ready" and project.web.pid_of("web") != before)
        assert gateway.get("/").status_code == 200


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_the_next_autostart_adopts_what_runs_with_its_idle_clock(project, end):
    with running(project.gateway) as gateway:
        gateway.get("/")
        gateway.until(lambda: facts(gateway)["in_flight"] == 0)
        container, used_s = project.web.inspect("web"), facts(gateway)["last_used_s"]
        gateway.until(lambda: HOST in kept_clocks(gateway))
        getattr(gateway.process, end)()
        gateway.process.wait(30)
        gateway.start()
        gateway.until(lambda: gateway.state() == "ready")
        now = project.web.inspect("web")
        assert (now["Id"], now["State"]["StartedAt"]) == (container["Id"], container["State"]["StartedAt"])
        assert facts(gateway)["last_used_s"] == pytest.approx(used_s, abs=0.01)
        assert f'autostart_starts_total{{service="{HOST}",result="succeeded"}} 0' in gateway.metrics()


def test_what_fell_idle_while_autostart_was_away_is_stopped_when_it_is_back(project):
    project.gateway.options["services"][HOST]["idleTimeout"] = 1
    project.gateway.write()
    with running(project.gateway) as gateway:
        gateway.get("/")
        gateway.process.kill()
        gateway.process.wait(30)
        gateway.start()
        gateway.until(lambda: project.web.states() == {"web": "exited"})
