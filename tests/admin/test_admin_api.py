"""The local API: what it tells and does, asked over its real socket."""

import asyncio
import getpass
import json
import socket

import pytest
from processes import free_port
from prometheus_client.parser import text_string_to_metric_families
from stand import Stand, with_stand
from waiting import until

from autostart import errors, sites
from autostart.admin.client import Refused
from autostart.config.models import Admin
from autostart.errors import ConfigError, Problem
from autostart.lifecycle import State

HOST = "whisper.test"
HOSTS = {HOST: {"name": "Whisper", "aliases": ["w.test"]}, "whisperx.test": {}}


async def refused(stand, method, path, body=None):
    with pytest.raises(Refused) as raised:
        await stand.ask(method, path, body)
    return raised.value


def test_all_services_are_listed(tmp_path):
    async def test(stand):
        answer = await stand.ask("GET", "/v1/services")
        assert [(s["service"], s["state"]) for s in answer["services"]] == [
            (HOST, "stopped"),
            ("whisperx.test", "stopped"),
        ]

    with_stand(tmp_path, HOSTS, test)


@pytest.mark.parametrize("name", [HOST, "w.test", "whisper"])
def test_service_is_found_by_name_alias_and_beginning(tmp_path, name):
    async def test(stand):
        answer = await stand.ask("GET", f"/v1/services/{name}")
        assert (answer["service"], answer["name"], answer["aliases"]) == (HOST, "Whisper", ["w.test"])

    with_stand(tmp_path, HOSTS, test)


def test_start_waits_until_ready_and_knows_who_asked(tmp_path):
    async def test(stand):
        answer = await stand.ask("POST", "/v1/services/whisper/start")
        assert answer["state"] == "ready"
        assert answer["started_by"] == f"{getpass.getuser()} on the command line"
        assert answer["last_start"]["total_s"] > 0
        assert stand.services[HOST].state is State.READY

    with_stand(tmp_path, HOSTS, test)


def test_failed_start_tells_cause_hint_and_output(tmp_path):
    async def test(stand):
        stand.runtimes[HOST].start_failure = errors.ImageMissing("whisper:1")
        refusal = await refused(stand, "POST", "/v1/services/whisper/start")
        assert (refusal.status, refusal.code) == (503, "start_failed")
        assert set(refusal.body["error"]) == {"message", "type", "param", "code"}
        assert refusal.body["cause"] == "image_missing"
        assert "docker compose build" in refusal.body["hint"]
        assert refusal.body["log_tail"] == ["first line", "last line"]
        assert refusal.body["service"] == HOST

    with_stand(tmp_path, HOSTS, test)


def test_service_in_use_is_stopped_only_by_force(tmp_path):
    async def test(stand):
        async with stand.services[HOST].lease("test"):
            refusal = await refused(stand, "POST", "/v1/services/whisper/stop", {"force": False})
            assert (refusal.status, refusal.code, refusal.body["service"]) == (409, "in_use", HOST)
            assert (await stand.ask("POST", "/v1/services/whisper/stop", {"force": True}))[
                "state"
            ] == "stopped"

    with_stand(tmp_path, HOSTS, test)


def test_failed_stop_tells_why(tmp_path):
    async def test(stand):
        await stand.ask("POST", "/v1/services/whisper/start")
        stand.runtimes[HOST].stop_failure = errors.StopFailed("it would not go")
        refusal = await refused(stand, "POST", "/v1/services/whisper/stop")
        assert (refusal.status, refusal.body["cause"], str(refusal)) == (
            502,
            "stop_failed",
            "it would not go",
        )

    with_stand(tmp_path, HOSTS, test)


def test_hold_keeps_it_awake_and_ends_with_zero(tmp_path):
    async def test(stand):
        assert (await stand.ask("POST", "/v1/services/whisper/hold", {"for_s": 3600}))["held_for_s"] > 3500
        assert (await stand.ask("POST", "/v1/services/whisper/hold", {"for_s": 0}))["held_for_s"] == 0

    with_stand(tmp_path, HOSTS, test)


@pytest.mark.parametrize("for_s", [None, "2h", -1, True, 1e12, float("nan"), float("inf")], ids=str)
def test_hold_for_no_sensible_time_is_refused(tmp_path, for_s):
    async def test(stand):
        refusal = await refused(stand, "POST", "/v1/services/whisper/hold", {"for_s": for_s})
        assert (refusal.status, refusal.code, refusal.body["error"]["param"]) == (
            400,
            "invalid_request",
            "for_s",
        )

    with_stand(tmp_path, HOSTS, test)


def test_reload_is_passed_on(tmp_path):
    async def test(stand):
        assert await stand.ask("POST", "/v1/reload") == {"services": 2}
        assert stand.reloads == 1

    with_stand(tmp_path, HOSTS, test)


def test_refused_reload_tells_every_mistake(tmp_path):
    async def test(stand):
        async def reload():
            raise ConfigError(tmp_path / "config.json", [Problem("listen", "is wrong", "an address")])

        stand.reload = reload
        refusal = await refused(stand, "POST", "/v1/reload")
        assert (refusal.status, refusal.code) == (422, "config_invalid")
        assert refusal.body["problems"] == [
            {"where": "listen", "message": "is wrong", "accepted": "an address"}
        ]

    with_stand(tmp_path, HOSTS, test)


def test_mistake_of_our_own_is_json_without_a_traceback(tmp_path, caplog):
    async def test(stand):
        async def reload():
            raise ZeroDivisionError("secret detail")

        stand.reload = reload
        refusal = await refused(stand, "POST", "/v1/reload")
        assert (refusal.status, refusal.code) == (500, "internal_error")
        assert "secret detail" not in json.dumps(refusal.body)

    with_stand(tmp_path, HOSTS, test)
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/services/nothing", 404, "unknown_service"),
        ("GET", "/v1/services/wh", 409, "ambiguous_service"),
        ("GET", "/v1/services/%2e%2e%2fx", 404, "unknown_service"),
        ("GET", "/nowhere", 404, "invalid_request"),
        ("DELETE", "/v1/services/whisper", 405, "invalid_request"),
    ],
)
def test_errors_have_the_shape_of_all_others(tmp_path, method, path, status, code):
    async def test(stand):
        refusal = await refused(stand, method, path)
        assert (refusal.status, refusal.code) == (status, code)

    with_stand(tmp_path, HOSTS, test)


@pytest.mark.parametrize("body", ["[]", "{", "\udcff", '{"force": "yes"}'])
def test_body_that_makes_no_sense_is_refused(tmp_path, body):
    async def test(stand):
        reader, writer = await asyncio.open_unix_connection(stand.socket)
        sent = body.encode("utf-8", "surrogateescape")
        head = f"POST /v1/services/whisper/stop HTTP/1.1\r\nHost: x\r\nContent-Length: {len(sent)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + sent)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"code": "invalid_request"' in answer

    with_stand(tmp_path, HOSTS, test)


def test_health_tells_that_it_lives(tmp_path):
    async def test(stand):
        answer = await stand.ask("GET", "/health")
        assert (answer["status"], answer["services"]) == ("ok", 2)

    with_stand(tmp_path, HOSTS, test)


def test_caller_that_leaves_does_not_undo_the_start(tmp_path):
    async def test(stand):
        runtime = stand.runtimes[HOST]
        runtime.start_gate = asyncio.Event()
        _, writer = await asyncio.open_unix_connection(stand.socket)
        writer.write(b"POST /v1/services/whisper/start HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: stand.services[HOST].state is State.STARTING)
        writer.close()
        await writer.wait_closed()
        runtime.start_gate.set()
        await until(lambda: stand.services[HOST].state is State.READY)

    with_stand(tmp_path, HOSTS, test)


# --- the metrics listener --------------------------------------------------------------------------------


async def get(port, path, method="GET"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), head.decode(), body.decode()


def test_metrics_listener_serves_metrics(tmp_path):
    port = free_port()

    async def test(stand):
        status, head, body = await get(port, "/metrics")
        assert status == 200
        assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
        assert "autostart_service_state" in {family.name for family in text_string_to_metric_families(body)}
        assert (await get(port, "/health/live"))[0] == 200

    with_stand(tmp_path, HOSTS, test, metrics=f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/services"),
        ("POST", "/v1/services/whisper/start"),
        ("POST", "/v1/reload"),
        ("GET", "/health"),
    ],
)
def test_metrics_listener_does_nothing_else(tmp_path, method, path):
    port = free_port()

    async def test(stand):
        assert (await get(port, path, method))[0] == 404
        assert stand.runtimes[HOST].calls == []

    with_stand(tmp_path, HOSTS, test, metrics=f"127.0.0.1:{port}")


def test_metrics_can_be_served_on_a_unix_socket_again_after_a_crash(tmp_path):
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def test(stand):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()

    with_stand(tmp_path, HOSTS, test, metrics=f"unix:{path}")


def test_address_that_is_taken_is_named_and_leaves_nothing_behind(tmp_path):
    async def body(port):
        stand = Stand(tmp_path, {})
        await stand.admin.open(Admin(socket=stand.socket, metrics=f"127.0.0.1:{port}"))

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=str(port)):
            asyncio.run(body(port))
    assert not (tmp_path / "admin.sock").exists()


def test_who_finds_the_socket_finds_the_metrics(tmp_path, monkeypatch):
    was_there = []
    listen = sites.listen

    async def test(stand):
        assert was_there == [False]

    async def look_and_listen(runner, address):
        was_there.append((tmp_path / "admin.sock").exists())
        return await listen(runner, address)

    monkeypatch.setattr(sites, "listen", look_and_listen)
    with_stand(tmp_path, HOSTS, test, metrics="127.0.0.1:0")


def test_socket_handed_over_by_systemd_takes_the_place_of_our_own(tmp_path):
    async def body():
        stand = Stand(tmp_path, {})
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "systemd.sock"))
            sock.listen()
            await stand.admin.open(Admin(socket=stand.socket, metrics=None), [sock])
            try:
                assert not stand.socket.exists()
                stand.socket = tmp_path / "systemd.sock"
                assert (await stand.ask("GET", "/health"))["status"] == "ok"
            finally:
                await stand.admin.close()
        assert stand.socket.exists(), "it is systemd's to remove"

    asyncio.run(body())
