"""Reloads of a running `autostart serve`, as systemd sees them: many at once, broken ones, and good ones after."""

import json
import signal
import socket
import threading
from contextlib import closing

import pytest
from program import HOST, Gateway, running
from waiting import LIMIT_S


@pytest.fixture
def gateway(tmp_path):
    with running(Gateway(tmp_path)) as gateway:
        yield gateway


def last_reload(gateway: Gateway) -> str:
    return gateway.metrics().partition("\nautostart_config_last_reload_successful ")[2].partition("\n")[0]


def test_a_good_file_after_a_broken_one_is_taken_and_counted_so(gateway):
    good = gateway.path.read_text()
    gateway.path.write_text(good[: len(good) // 2])  # an editor's half
    gateway.process.send_signal(signal.SIGHUP)
    gateway.until(lambda: "error   msg=" in gateway.log.read_text())
    assert "configuration not reloaded, the old one stays" in gateway.log.read_text()
    assert last_reload(gateway) == "0"
    beside = gateway.path.with_suffix(".new")
    beside.write_text(good)
    beside.replace(gateway.path)
    assert gateway.cli("reload").returncode == 0
    assert last_reload(gateway) == "1"


def test_a_storm_of_reloads_cuts_nothing_and_the_last_file_counts(gateway):
    answers = []
    request = threading.Thread(target=lambda: answers.append(gateway.get(gateway.slow)))
    request.start()
    gateway.until(gateway.is_in_use)
    for number in range(20):
        gateway.options["services"][f"s{number}.test"] = gateway.service()
        gateway.path.with_suffix(".new").write_text(json.dumps(gateway.options))
        gateway.path.with_suffix(".new").replace(gateway.path)
        gateway.process.send_signal(signal.SIGHUP)
    gateway.until(lambda: "configuration reloaded: 21 services" in gateway.log.read_text())
    gateway.let_go()
    request.join()
    assert [answer.text for answer in answers] == ["slow"]
    assert gateway.get(host="s19.test").status_code == 200
    assert "Traceback" not in gateway.log.read_text()


def test_a_reload_while_a_start_is_under_way_leaves_it_alone(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.options["services"][HOST]["runtime"]["env"] = {"START_AT": str(gateway.gate)}
    gateway.write()
    with running(gateway):
        answers = []
        request = threading.Thread(target=lambda: answers.append(gateway.get()))
        request.start()
        gateway.until(lambda: gateway.state() == "starting")
        gateway.options["services"][HOST]["idleTimeout"] = "1h"
        gateway.write()
        assert gateway.cli("reload").returncode == 0
        assert gateway.state() == "starting"
        gateway.let_go()
        request.join()
        assert [answer.status_code for answer in answers] == [200]
        assert f'autostart_starts_total{{service="{HOST}",result="succeeded"}} 1' in gateway.metrics()


def test_what_only_a_restart_changes_is_named(gateway):
    gateway.options["listen"] = ["127.0.0.1:1"]
    gateway.options["admin"]["metrics"] = None
    gateway.write()
    assert gateway.cli("reload").returncode == 0
    log = gateway.log.read_text()
    assert "option=listen changed, which takes effect with a restart" in log
    assert "option=admin changed, which takes effect with a restart" in log
    assert gateway.get().status_code == 200


@pytest.mark.parametrize("what", ["good", "broken"])
def test_systemd_is_told_of_each_reload_and_its_end(tmp_path, monkeypatch, what):
    """Type=notify-reload waits for READY=1 after RELOADING=1, also when the new file is refused."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LIMIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with running(Gateway(tmp_path)) as gateway:
            assert systemd.recv(4096).startswith(b"READY=1")
            if what == "broken":
                gateway.path.write_text("{")
            gateway.process.send_signal(signal.SIGHUP)
            assert systemd.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert systemd.recv(4096).startswith(b"READY=1")
            gateway.process.terminate()
            assert systemd.recv(4096).startswith(b"STOPPING=1")
