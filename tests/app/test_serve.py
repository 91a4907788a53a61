"""The whole program: `autostart serve` in a process of its own, with services that are processes."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from processes import free_port, lives
from program import HOST, Gateway, running


@pytest.fixture
def gateway(tmp_path):
    with running(Gateway(tmp_path)) as gateway:
        yield gateway


def test_request_wakes_the_service_and_is_forwarded(gateway):
    answer = gateway.get("/headers")
    assert answer.status_code == 200
    assert dict(answer.json())["Host"] == HOST
    assert f'autostart_starts_total{{service="{HOST}",result="succeeded"}} 1' in gateway.metrics()


def test_broken_configuration_ends_with_exit_code_2_and_says_where(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.options["services"][HOST]["idleTimeout"] = "soon"
    gateway.write()
    done = gateway.cli("serve")
    assert done.returncode == 2
    assert f"{gateway.path}: services.{HOST}.idleTimeout" in done.stderr


def test_address_that_is_taken_is_told_without_a_traceback(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = Gateway(tmp_path, listen=[f"127.0.0.1:{taken.getsockname()[1]}"])
        done = gateway.cli("serve")
    assert done.returncode == 1
    assert "address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_term_lets_an_open_request_finish_and_leaves_no_process(tmp_path):
    with running(Gateway(tmp_path)) as gateway:
        pid = int(gateway.get().text)
        answers = []
        request = threading.Thread(target=lambda: answers.append(gateway.get(gateway.slow)))
        request.start()
        gateway.until(gateway.is_in_use)
        gateway.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            gateway.process.wait(2)  # longer than an answer that has been given may take to leave
        gateway.let_go()
        assert gateway.process.wait(30) == 0
        request.join()
        assert [answer.text for answer in answers] == ["slow"]
        assert not lives(pid)


def test_reload_that_comes_while_draining_cuts_nothing(tmp_path):
    with running(Gateway(tmp_path)) as gateway:
        gateway.options["services"]["other.test"] = gateway.service()
        answers = []
        gateway.get()
        request = threading.Thread(target=lambda: answers.append(gateway.get(gateway.slow)))
        request.start()
        gateway.until(gateway.is_in_use)
        gateway.write()
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: "draining" in gateway.log.read_text())
        gateway.process.send_signal(signal.SIGHUP)
        assert "shutting down" in gateway.cli("reload").stderr
        gateway.process.send_signal(signal.SIGTERM)
        gateway.let_go()
        assert gateway.process.wait(30) == 0
        request.join()
        assert [answer.text for answer in answers] == ["slow"]
        assert "configuration reloaded" not in gateway.log.read_text()
        assert "Traceback" not in gateway.log.read_text()


def test_request_that_waits_for_a_start_is_answered_before_the_end(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.options["services"][HOST]["runtime"]["env"] = {"START_AT": str(gateway.gate)}
    gateway.write()
    with running(gateway):
        answers = []
        request = threading.Thread(target=lambda: answers.append(gateway.get("/headers")))
        request.start()
        gateway.until(lambda: gateway.state() == "starting")
        gateway.process.terminate()
        gateway.until(lambda: "draining" in gateway.log.read_text())
        gateway.let_go()
        assert gateway.process.wait(30) == 0
        request.join()
        assert [answer.status_code for answer in answers] == [200]


def test_engine_that_hangs_does_not_keep_autostart_from_listening(tmp_path, monkeypatch):
    address = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(address)
        engine.listen(64)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{address}")
        gateway = Gateway(tmp_path)
        (tmp_path / "compose.yaml").write_text("services: {web: {image: web}}")
        gateway.options["services"]["compose.test"] = {"composeDir": str(tmp_path), "proxyPort": free_port()}
        gateway.write()
        with running(gateway):
            assert "operation=observe" not in gateway.log.read_text()
            assert gateway.get().status_code == 200


def test_new_command_of_a_busy_service_comes_after_its_open_requests(gateway):
    pid = int(gateway.get().text)
    answers = []
    request = threading.Thread(target=lambda: answers.append(gateway.get(gateway.slow)))
    request.start()
    gateway.until(gateway.is_in_use)
    gateway.options["services"][HOST]["runtime"]["env"] = {"NEW": "1"}
    gateway.write()
    assert gateway.cli("reload").returncode == 0
    assert int(gateway.get().text) == pid
    gateway.let_go()
    request.join()
    assert [answer.text for answer in answers] == ["slow"]
    gateway.until(lambda: not lives(pid))
    assert int(gateway.get().text) != pid


def test_kill_of_autostart_leaves_no_process_behind(tmp_path):
    with running(Gateway(tmp_path)) as gateway:
        pid = int(gateway.get().text)
        gateway.process.kill()
        gateway.process.wait()
        gateway.until(lambda: not lives(pid))


def test_reload_touches_only_what_changed(gateway):
    pid = gateway.get().text
    gateway.options["services"]["new.test"] = gateway.service(aliases=["other.test"])
    gateway.options["services"][HOST]["idleTimeout"] = "1h"
    gateway.write()
    gateway.process.send_signal(signal.SIGHUP)
    gateway.until(lambda: "configuration reloaded" in gateway.log.read_text())
    assert gateway.get().text == pid
    assert gateway.get(host="other.test").status_code == 200
    assert "idleTimeout is 1h" in gateway.cli("explain", HOST).stdout


def test_broken_reload_is_refused_and_the_old_configuration_stays(gateway):
    gateway.path.write_text("{")
    done = subprocess.run(
        [sys.executable, "-m", "autostart", "reload", "--socket", str(gateway.directory / "admin.sock")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "is not JSON" in done.stderr
    assert gateway.get().status_code == 200
    assert "autostart_config_last_reload_successful 0" in gateway.metrics()


def test_service_that_left_the_configuration_is_not_found_and_its_process_ends(gateway):
    pid = int(gateway.get().text)
    gateway.options["services"] = {"new.test": gateway.service()}
    gateway.write()
    assert gateway.cli("reload").returncode == 0
    assert gateway.get().status_code == 404
    gateway.until(lambda: not lives(pid))


def test_idle_service_is_stopped_and_the_next_request_starts_another(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.options["services"][HOST]["idleTimeout"] = 0.2
    gateway.write()
    with running(gateway):
        first = int(gateway.get().text)
        gateway.until(lambda: gateway.state() == "stopped")
        assert not lives(first)
        assert int(gateway.get().text) != first


def test_start_that_fails_says_why_and_is_held_off(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.options["services"][HOST]["runtime"]["command"] = [
        "/bin/sh",
        "-c",
        "echo no such model >&2; exit 3",
    ]
    gateway.options["services"][HOST]["failureDetails"] = "log"
    gateway.write()
    with running(gateway):
        failed, held_off = gateway.get(), gateway.get()
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "start_failed")
        assert "exit code 3" in failed.text
        assert "no such model" in failed.text
        assert (held_off.status_code, held_off.json()["error"]["code"]) == (503, "start_held_off")
        assert 0 < int(held_off.headers["Retry-After"]) <= 5


def test_process_that_was_killed_is_noticed_and_started_again(gateway):
    pid = int(gateway.get().text)
    os.kill(pid, signal.SIGTERM)
    gateway.until(lambda: gateway.state() == "stopped")
    assert int(gateway.get().text) != pid


def test_sockets_handed_over_by_systemd_take_the_place_of_listen(tmp_path):
    gateway = Gateway(tmp_path, listen=["127.0.0.1:1"])
    with socket.create_server(("127.0.0.1", gateway.port)) as listener:
        gateway.start(listener)
        try:
            assert gateway.get().status_code == 200
        finally:
            gateway.end()


def test_secrets_of_a_request_are_not_logged(gateway):
    gateway.get("/pid?token=sekrit-query", headers={"Authorization": "Bearer sekrit-key"})
    gateway.get("/pid", auth=("alice", "sekrit-password"))
    gateway.until(lambda: gateway.log.read_text().count("event=request") == 2)
    assert "sekrit" not in gateway.log.read_text()
