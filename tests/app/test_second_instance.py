"""Addresses and sockets that somebody else has: what `autostart serve` takes, and what it says."""

import socket

import httpx
import pytest
from program import HOST, Gateway, running


def test_second_autostart_takes_nothing_from_the_first(tmp_path):
    path = tmp_path / "http.sock"
    with running(Gateway(tmp_path, listen=[f"unix:{path}"])) as gateway:
        done = gateway.cli("serve")
        assert done.returncode == 1
        assert "another autostart" in done.stderr
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=30) as client:
            assert client.get("http://x/pid", headers={"Host": HOST}).status_code == 200


def test_unix_socket_of_another_program_is_left_alone(tmp_path):
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        done = Gateway(tmp_path, listen=[f"unix:{path}"]).cli("serve")
        assert done.returncode == 1
        assert f"cannot serve: unix:{path}: address already in use" in done.stderr
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_unix_socket_that_a_dead_program_left_is_replaced(tmp_path):
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    gateway = Gateway(tmp_path, listen=[f"unix:{path}"])
    with running(gateway), httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=30) as client:
        assert client.get("http://x/pid", headers={"Host": HOST}).status_code == 200


@pytest.mark.parametrize("what", ["listen", "metrics"])
def test_address_that_is_taken_is_named(tmp_path, what):
    gateway = Gateway(tmp_path)
    port = gateway.port if what == "listen" else gateway.metrics_port
    with socket.create_server(("127.0.0.1", port)):
        done = gateway.cli("serve")
    assert done.returncode == 1
    assert f"cannot serve: 127.0.0.1:{port}: address already in use" in done.stderr
    assert not (tmp_path / "admin.sock").exists()
    assert not (tmp_path / ".admin.sock.lock").exists()


def test_spool_directory_that_is_of_no_use_is_told_at_the_start(tmp_path):
    with running(Gateway(tmp_path, spoolDir="nowhere")) as gateway:
        told = f"spoolDir={tmp_path}/nowhere is of no use: uploads wait in their clients"
        assert told in gateway.log.read_text()
        assert gateway.get().status_code == 200


def test_reload_of_a_file_that_does_not_parse_says_why_and_is_counted(tmp_path):
    with running(Gateway(tmp_path)) as gateway:
        gateway.path.write_text(gateway.path.read_text().rstrip("}") + ",}")
        done = gateway.cli("reload")
        assert done.returncode == 2
        assert "is not JSON" in done.stderr
        assert gateway.get().status_code == 200
        assert "autostart_config_last_reload_successful 0" in gateway.metrics()
