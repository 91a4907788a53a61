"""A kill of autostart in the middle of a start or a stop of real containers: what the next one makes of it."""

import signal
import subprocess
import sys

import pytest
from program import HOST, Gateway, running
from stacks import PAIR

pytestmark = pytest.mark.docker


def served(stack, directory, **options) -> Gateway:
    gateway = Gateway(directory)
    gateway.options["services"] = {
        HOST: {"composeDir": str(stack.directory), "proxyPort": stack.port, **options}
    }
    gateway.write()
    return gateway


def kill(gateway: Gateway) -> None:
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait(30)


def command(gateway: Gateway, *words: str) -> subprocess.Popen:
    words = (sys.executable, "-m", "autostart", *words, HOST, "--config", str(gateway.path))
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def slow_pair(stack):
    """Containers `web`, which waits for `db` to be healthy, and `db`, which is not before it is told to."""
    text = PAIR.replace("    depends_on: [db]", "    depends_on: {db: {condition: service_healthy}}")
    check = '    healthcheck: {test: ["CMD", "test", "-e", "/well"], interval: 1s, retries: 100}\n'
    return stack.write(text + check)


def test_what_came_up_while_nobody_watched_is_adopted_and_not_started_twice(slow_pair, tmp_path):
    with running(served(slow_pair, tmp_path)) as gateway:
        with command(gateway, "start"):
            gateway.until(lambda: slow_pair.states().get("db") == "running")
            kill(gateway)
        first = slow_pair.inspect("db")["State"]["StartedAt"]
        slow_pair.run_in("db", "touch", "/well")
        gateway.start()
        assert gateway.get("/").status_code == 200
        assert slow_pair.states() == {"web": "running", "db": "running"}
        assert slow_pair.inspect("db")["State"]["StartedAt"] == first


def test_what_a_killed_start_has_left_half_up_does_not_run_for_ever(slow_pair, tmp_path):
    with running(served(slow_pair, tmp_path, idleTimeout=1)) as gateway:
        with command(gateway, "start"):
            gateway.until(lambda: slow_pair.states().get("db") == "running")
            kill(gateway)
        gateway.start()
        gateway.until(lambda: "running" not in slow_pair.states().values())


def test_a_stop_that_was_killed_half_way_is_brought_to_its_end(stack, tmp_path):
    slow_to_end = '    environment: {IGNORE_TERM: "1"}\n    depends_on: [db]'
    stack.write(PAIR.replace("    depends_on: [db]", slow_to_end))
    with running(served(stack, tmp_path, stopTimeout=2, idleTimeout=3600)) as gateway:
        assert gateway.get("/").status_code == 200
        with command(gateway, "stop"):
            gateway.until(lambda: gateway.state() == "stopping")
            kill(gateway)
        gateway.options["services"][HOST]["idleTimeout"] = 1
        gateway.write()
        gateway.start()
        gateway.until(lambda: "running" not in stack.states().values())
        assert gateway.get("/").status_code == 200
