"""How `autostart serve` ends while something is open: who is told, who is cut, and when."""

import signal
import subprocess
import sys
import threading

import httpx
import pytest
from program import HOST, Gateway, running


@pytest.fixture
def hanging(tmp_path):
    """A gateway whose service never becomes ready."""
    gateway = Gateway(tmp_path, drainTimeout="0.1s")
    gateway.options["services"][HOST]["runtime"]["env"] = {"START_AT": str(gateway.gate)}
    gateway.write()
    with running(gateway):
        yield gateway


def test_upload_that_waits_for_a_start_is_told_when_time_is_up(hanging):
    answers = []

    def upload():
        url = f"http://127.0.0.1:{hanging.port}/"
        answers.append(httpx.post(url, headers={"Host": HOST}, content=b"x" * 2**20, timeout=30))

    request = threading.Thread(target=upload)
    request.start()
    hanging.until(lambda: hanging.state() == "starting")
    assert hanging.end() == 0
    request.join()
    assert [(a.status_code, a.json()["error"]["code"]) for a in answers] == [(503, "shutting_down")]


def test_command_that_waits_for_a_start_is_told_when_time_is_up(hanging):
    command = [sys.executable, "-m", "autostart", "start", HOST, "--config", str(hanging.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as start:
        hanging.until(lambda: hanging.state() == "starting")
        assert hanging.end() == 0
        assert start.communicate(timeout=30)[1] == "autostart: autostart is shutting down\n"
        assert start.returncode == 1


def test_request_that_is_not_answered_when_time_is_up_is_told(tmp_path):
    with running(Gateway(tmp_path, drainTimeout="0.1s")) as gateway:
        answers = []
        request = threading.Thread(target=lambda: answers.append(gateway.get(gateway.slow)))
        request.start()
        gateway.until(gateway.is_in_use)
        assert gateway.end() == 0
        request.join()
    assert [(a.status_code, a.json()["error"]["code"]) for a in answers] == [(503, "shutting_down")]
    assert "code=shutting_down" in gateway.log.read_text()


def test_second_interrupt_ends_the_wait_for_open_requests(tmp_path):
    with running(Gateway(tmp_path, drainTimeout="1h")) as gateway:
        request = threading.Thread(target=lambda: gateway.get(gateway.slow))
        request.start()
        gateway.until(gateway.is_in_use)
        gateway.process.send_signal(signal.SIGINT)
        gateway.until(lambda: "draining" in gateway.log.read_text())
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(30) == 0
        request.join()
        assert "interrupted again: open requests are cut" in gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()
