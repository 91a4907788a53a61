"""The whole program while its Docker engine ends, dies and comes back: an engine of the test's own."""

import os
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from clients import open_stream
from engines import NEEDS, OwnEngine
from program import HOST, Gateway, running
from stacks import WEB, Stack, any_compose

pytestmark = [pytest.mark.docker, pytest.mark.skipif(os.geteuid() != 0, reason=NEEDS)]

lives_on = pytest.mark.parametrize("site", [True], indirect=True, ids=["live-restore"])
ends_all = pytest.mark.parametrize("site", [False], indirect=True, ids=["default"])


@pytest.fixture
def site(request, tmp_path, monkeypatch) -> Iterator[SimpleNamespace]:
    """A gateway before a project in an engine of its own."""
    home = tmp_path / "web"
    home.mkdir()
    with OwnEngine(live_restore=request.param) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.address)
        stack = Stack(home, engine.client, any_compose(), address=engine.address).write(WEB)
        gateway = Gateway(tmp_path)
        gateway.options["services"] = {HOST: {"composeDir": str(home), "proxyPort": stack.port}}
        gateway.write()
        yield SimpleNamespace(engine=engine, stack=stack, gateway=gateway)
        stack.client = engine.client
        stack.remove()


def back(site) -> None:
    site.engine.start()
    site.stack.client = site.engine.client


def count(gateway: Gateway, series: str) -> int:
    return int(gateway.metrics().partition(f"\nautostart_{series} ")[2].partition("\n")[0])


@lives_on
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_while_the_engine_is_away_what_runs_is_served_and_afterwards_seen_again(site, end):
    with running(site.gateway) as gateway:
        client = open_stream(gateway)
        pid = site.stack.pid_of("web")
        getattr(site.engine, end)()
        gateway.until(lambda: b"cannot be followed: no Docker engine answers" in gateway.log.read_bytes())
        assert gateway.get("/").status_code == 200
        back(site)
        gateway.until(lambda: count(gateway, "event_stream_reconnects_total") == 1)
        assert gateway.get("/").status_code == 200
        assert (gateway.state(), site.stack.pid_of("web"), client.cut) == ("ready", pid, None)
        assert count(gateway, f'starts_total{{service="{HOST}",result="succeeded"}}') == 1
        site.stack.docker("stop", site.stack.id_of("web"))  # told again, and not only looked up
        gateway.until(lambda: gateway.state() == "stopped")
        client.join(30)
        assert client.cut is True


@ends_all
def test_requests_while_the_engine_is_away_are_told_so_and_work_as_soon_as_it_is_back(site):
    with running(site.gateway) as gateway:
        gateway.get("/")
        site.engine.stop()
        gateway.until(lambda: gateway.state() == "stopped")
        refused = gateway.get("/")
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (503, "start_failed")
        assert "no Docker engine answers" in error["message"]
        assert gateway.get("/").json()["error"]["code"] == "start_held_off"
        assert "no Docker engine answers" in gateway.cli("explain", HOST).stdout
        for _ in range(3):  # held off for 40 s then
            assert "no Docker engine answers" in gateway.cli("start", HOST).stderr
        back(site)
        gateway.until(lambda: gateway.get("/").status_code == 200)
        assert count(gateway, f'stops_total{{service="{HOST}",reason="external"}}') == 1
        assert count(gateway, f'start_failures_total{{service="{HOST}",cause="engine_unreachable"}}') == 4


@ends_all
def test_an_engine_that_hangs_is_alone_in_hanging(site):
    other = "other.test"
    site.gateway.options["services"][HOST]["waitTimeout"] = 1
    site.gateway.options["services"][other] = site.gateway.service()
    site.gateway.write()
    with running(site.gateway) as gateway:
        gateway.until(lambda: gateway.get("/").status_code == 200)  # the start may outlast the wait
        with site.engine.hanging():
            assert gateway.get("/").status_code == 200
        assert gateway.cli("stop", HOST).returncode == 0
        with site.engine.hanging():
            waiter = gateway.get("/")
            assert (waiter.status_code, waiter.json()["error"]["code"]) == (504, "start_timeout")
            assert gateway.get("/pid", other).status_code == 200
            assert gateway.cli("stop", other).returncode == 0
            assert (gateway.state(), gateway.state(other)) == ("starting", "stopped")
        gateway.until(lambda: gateway.get("/").status_code == 200)


@ends_all
def test_containers_that_end_with_their_engine_unseen_are_found_stopped_when_it_is_back(site):
    with running(site.gateway) as gateway:
        gateway.get("/")
        before = site.stack.pid_of("web")
        site.engine.kill()
        assert gateway.get("/").status_code == 200
        back(site)  # which ends what it finds running, and may tell of it after it can be asked again
        gateway.until(lambda: gateway.state() in {"stopped", "failed"})
        assert gateway.cli("start", HOST).returncode == 0
        assert gateway.get("/").status_code == 200
        assert site.stack.pid_of("web") != before


@lives_on
def test_what_runs_is_adopted_once_the_engine_is_there(site):
    site.stack.compose("up", "-d")
    pid = site.stack.pid_of("web")
    site.engine.kill()
    with running(site.gateway) as gateway:
        assert gateway.state() == "stopped"
        back(site)
        gateway.until(lambda: gateway.state() == "ready")
        assert site.stack.pid_of("web") == pid


@ends_all
def test_an_engine_that_is_away_is_asked_for_less_and_less_often(site):
    with running(site.gateway) as gateway:
        gateway.get("/")
        site.engine.stop()
        site.engine.socket.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as stand_in:
            stand_in.bind(str(site.engine.socket))
            stand_in.listen()
            stand_in.settimeout(30)
            asked_s = []
            for _ in range(8):
                connection, _ = stand_in.accept()
                connection.close()
                asked_s.append(time.monotonic())
        site.engine.socket.unlink()
        # Two connections an attempt, and 0.1, 0.2, 0.4 s between them: a loop that is busy needs milliseconds.
        assert asked_s[-1] - asked_s[0] > 0.6
        assert gateway.log.read_text().count("cannot be followed") <= 3
        back(site)
