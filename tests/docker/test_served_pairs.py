"""The whole program before projects of two containers: what becomes of the one when something befalls the other."""

import subprocess
import sys

import pytest
from processes import free_port
from program import HOST, Gateway, running
from stacks import PAIR

pytestmark = pytest.mark.docker

OTHER = "other.test"


@pytest.fixture
def pair(stack):
    """Containers `web`, which waits for `db`, and `db` behind ports of their own; web's end takes its time."""
    stack.other_port = free_port()
    slow_to_end = '    environment: {IGNORE_TERM: "1"}\n    depends_on: [db]'
    text = PAIR.replace("    depends_on: [db]", slow_to_end)
    return stack.write(text + f'    ports: ["127.0.0.1:{stack.other_port}:8080"]\n')


@pytest.fixture
def gateway(pair, tmp_path):
    gateway = Gateway(tmp_path)
    gateway.options["services"] = {HOST: service(pair, pair.port, stopTimeout=1)}
    gateway.write()
    with running(gateway):
        assert gateway.get("/").status_code == 200
        yield gateway


def service(pair, port: int, **options) -> dict:
    return {"composeDir": str(pair.directory), "proxyPort": port, **options}


def reload(gateway: Gateway) -> None:
    gateway.write()
    assert gateway.cli("reload").returncode == 0


def test_a_service_that_comes_with_a_reload_keeps_its_container_when_the_first_one_is_stopped(gateway, pair):
    services = gateway.options["services"]
    services[HOST]["containers"] = ["web"]
    reload(gateway)
    gateway.until(lambda: gateway.state() == "ready")
    services[OTHER] = service(pair, pair.other_port, containers=["db"])
    reload(gateway)
    gateway.until(lambda: gateway.state(OTHER) == "ready")
    assert gateway.cli("stop", HOST).returncode == 0
    assert pair.states() == {"web": "exited", "db": "running"}


def test_a_crash_of_one_container_ends_the_other_once_the_service_is_idle(gateway, pair):
    subprocess.run(["kill", "-9", str(pair.pid_of("db"))], check=True)
    gateway.until(lambda: gateway.state() in {"stopped", "failed"})
    assert pair.states() == {"web": "running", "db": "exited"}
    gateway.options["services"][HOST]["idleTimeout"] = 1
    reload(gateway)
    gateway.until(lambda: pair.states() == {"web": "exited", "db": "exited"})


def test_a_stop_under_way_is_finished_before_autostart_ends(gateway, pair):
    with subprocess.Popen(
        [sys.executable, "-m", "autostart", "stop", HOST, "--config", gateway.path]
    ) as stop:
        gateway.until(lambda: gateway.state() == "stopping")
        assert gateway.end() == 0
        stop.wait()
    assert pair.states() == {"web": "exited", "db": "exited"}
