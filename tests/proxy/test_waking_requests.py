"""What a request meets while its service sleeps, starts, fails or is being stopped."""

import asyncio
import re

import pytest
from aiohttp import web
from gateways import HOST, open_gateway
from waiting import until

from autostart import errors
from autostart.lifecycle import State

PERSON = [("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html,*/*")]
OLD_BROWSER = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")]
PROGRAM = [("Accept", "application/json")]


def test_a_request_wakes_its_service_and_waits_for_it(run):
    async def check():
        async with open_gateway(start_gate=True) as gateway:
            waiting = asyncio.ensure_future(gateway.ask().__aenter__())
            await until(lambda: gateway.service.snapshot().waiting == 1)
            gateway.runtime.gate.set()
            answer = await waiting
            assert (answer.status, await answer.text()) == (200, "hello")
            await until(lambda: gateway.ended)
            assert gateway.ended[0].waited_s > 0
            assert gateway.service.snapshot().leases == ()

    run(check())


def test_a_post_to_a_sleeping_service_is_held_body_and_all(run):
    async def serve(request):
        return web.Response(text=str(len(await request.read())))

    async def check():
        async with (
            open_gateway(serve, asleep=True) as gateway,
            gateway.ask("POST", data=b"x" * 300_000) as answer,
        ):
            assert (answer.status, await answer.text()) == (200, "300000")

    run(check())


def test_an_unknown_host_is_404_and_names_no_other(run):
    async def check():
        async with open_gateway(asleep=True) as gateway, gateway.ask(host="other.example.org") as answer:
            text = await answer.text()
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "unknown_host")
            assert HOST not in text
            assert gateway.runtime.starts == 0
            await until(lambda: gateway.ended)
            assert gateway.ended[0].service is None

    run(check())


@pytest.mark.parametrize("host", [HOST.upper(), f"{HOST}:8443", f"{HOST}.", f"{HOST.title()}.:80"])
def test_host_names_are_looked_up_in_one_form_and_passed_on_as_they_came(run, host):
    async def serve(request):
        return web.Response(text=request.headers["Host"])

    async def check():
        async with open_gateway(serve) as gateway, gateway.ask(host=host) as answer:
            assert await answer.text() == host
            assert gateway.ended == [] or gateway.ended[0].service == HOST

    run(check())


@pytest.mark.parametrize(
    ("blocking", "method", "headers", "expected"),
    [
        (None, "GET", PERSON, "page"),
        (None, "GET", OLD_BROWSER, "page"),
        (None, "HEAD", PERSON, "waits"),
        (None, "POST", PERSON, "waits"),
        (None, "GET", PROGRAM, "waits"),
        (None, "GET", [("Sec-Fetch-Mode", "cors"), ("Accept", "text/html")], "waits"),
        (True, "GET", PERSON, "waits"),
        (False, "GET", PERSON, "page"),
        (False, "GET", PROGRAM, "error"),
        (False, "POST", PROGRAM, "error"),
        (False, "HEAD", PERSON, "error"),
    ],
)
def test_who_waits_and_who_is_answered_at_once(run, blocking, method, headers, expected):
    async def check():
        async with open_gateway(start_gate=True, blocking=blocking) as gateway:
            asked = asyncio.ensure_future(gateway.ask(method, headers=headers).__aenter__())
            await until(lambda: asked.done() or gateway.service.snapshot().waiting)
            assert gateway.service.state is State.STARTING
            assert asked.done() == (expected != "waits")
            if expected == "waits":
                gateway.runtime.gate.set()
                assert (await asked).status == 200
                return
            answer = await asked
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.headers["Cache-Control"] == "no-store"
            if expected == "page":
                assert answer.content_type == "text/html"
            elif method != "HEAD":
                assert (await answer.json())["error"]["code"] == "starting"
            assert gateway.service.snapshot().leases == ()

    run(check())


def test_nobody_is_kept_waiting_by_a_page_once_the_service_is_ready(run):
    async def check():
        async with open_gateway(blocking=False) as gateway, gateway.ask(headers=PERSON) as answer:
            assert (answer.status, await answer.text()) == (200, "hello")

    run(check())


def test_the_page_works_without_scripts_and_loads_nothing_from_elsewhere(run):
    async def check():
        async with open_gateway(start_gate=True, name="A <b>name</b>") as gateway:
            async with gateway.ask("GET", "/x", headers=PERSON) as answer:
                page = await answer.text()
            assert re.search(r'<noscript>\s*<meta http-equiv="refresh" content="\d+">', page)
            assert "A &lt;b&gt;name&lt;/b&gt;" in page
            assert not re.search(r"(src|href)=|https?://|//[a-z]", page)
            assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]

    run(check())


def test_the_page_can_follow_the_start_without_waking_or_counting(run):
    async def state(gateway):
        async with gateway.ask("GET", "/.autostart/state") as answer:
            assert answer.status == 200
            return await answer.json()

    async def check():
        async with open_gateway(start_gate=True) as gateway:
            assert (await state(gateway))["state"] == "stopped"
            assert gateway.runtime.starts == 0
            async with gateway.ask(headers=PERSON):
                pass
            told = await state(gateway)
            assert (told["state"], told["elapsed_s"] >= 0, told["expected_start_s"] > 0) == (
                "starting",
                True,
                True,
            )
            gateway.runtime.gate.set()
            await until(lambda: gateway.service.state is State.READY)
            assert (await state(gateway))["state"] == "ready"
            assert gateway.service.snapshot().last_used_s is None
            assert [event.path for event in gateway.ended] == ["/"]  # nor is it news for the log

    run(check())


def test_a_failed_start_answers_every_waiter_with_the_cause_and_the_next_one_is_held_off(run):
    async def check():
        async with open_gateway(start_gate=True) as gateway:
            gateway.runtime.failure = errors.Exited("the model server", 3)
            asked = [asyncio.ensure_future(gateway.ask().__aenter__()) for _ in range(5)]
            await until(lambda: gateway.service.snapshot().waiting == 5)
            gateway.runtime.gate.set()
            for answer in await asyncio.gather(*asked):
                told = await answer.json()
                assert (answer.status, told["error"]["code"]) == (503, "start_failed")
                assert (told["cause"], told["exit_code"], told["state"]) == ("exited", 3, "failed")
                assert "log_tail" not in told
                assert answer.headers["x-should-retry"] == "false"
                assert int(answer.headers["Retry-After"]) == 5
            async with gateway.ask() as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "start_held_off")
            async with gateway.ask(headers=PERSON) as answer:
                assert (answer.status, answer.content_type) == (503, "text/html")
                assert "refresh" not in await answer.text()
            assert gateway.runtime.starts == 1

    run(check())


@pytest.mark.parametrize(("details", "shows"), [("none", False), ("cause", False), ("log", True)])
def test_the_config_says_who_sees_the_log(run, details, shows):
    async def check():
        async with open_gateway(asleep=True, failureDetails=details) as gateway:
            gateway.runtime.failure = errors.Exited("the model server", 3)
            async with gateway.ask() as answer:
                told = await answer.json()
                assert ("log_tail" in told, "cause" in told) == (shows, details != "none")

    run(check())


def test_a_start_that_outlasts_the_wait_is_told_and_goes_on(run):
    async def check():
        async with open_gateway(start_gate=True, waitTimeout=0.05) as gateway:
            async with gateway.ask() as answer:
                told = await answer.json()
                assert (answer.status, told["error"]["code"], told["state"]) == (
                    504,
                    "start_timeout",
                    "starting",
                )
            gateway.runtime.gate.set()
            await until(lambda: gateway.service.state is State.READY)
            async with gateway.ask() as answer:
                assert answer.status == 200
            assert gateway.runtime.starts == 1

    run(check())


def test_a_waiter_that_leaves_is_noticed_and_the_start_goes_on(run):
    async def check():
        async with open_gateway(start_gate=True) as gateway:
            _, writer = await gateway.connect()
            writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await until(lambda: gateway.service.snapshot().waiting == 1)
            writer.close()
            await until(lambda: gateway.ended)
            assert (gateway.ended[0].status, gateway.ended[0].code) == (499, "client_gone")
            assert gateway.service.snapshot().waiting == 0
            gateway.runtime.gate.set()
            await until(lambda: gateway.service.state is State.READY)

    run(check())


def test_an_upload_over_the_limit_wakes_nothing(run):
    async def check():
        async with open_gateway(asleep=True, maxBodySize=1000) as gateway:
            reader, writer = await gateway.connect()
            writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1001\r\n\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
            writer.close()
            assert gateway.runtime.starts == 0

    run(check())


def test_a_chunked_upload_over_the_limit_is_refused_and_the_service_never_sees_its_end(run):
    async def serve(request):
        try:
            await request.read()
        except web.RequestPayloadError:
            ends.append("broken off")
            raise
        ends.append("complete")
        return web.Response()

    ends: list[str] = []

    async def pieces():
        for _ in range(100):
            yield b"x" * 1000

    async def check():
        async with open_gateway(serve, maxBodySize=50_000) as gateway:
            async with gateway.ask("POST", data=pieces()) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (413, "body_too_large")
            async with gateway.ask("POST", data=b"x" * 50_000) as answer:
                assert answer.status == 200
        assert ends[-1] == "complete"
        assert "complete" not in ends[:-1]

    run(check())


@pytest.mark.parametrize(
    ("chunks", "status", "code"),
    [
        (b"1000\r\n" + b"x" * 0x1000 + b"\r\n", 413, "body_too_large"),
        (b"10\r\n" + b"x" * 16 + b"\r\nzz\r\n", 400, "bad_request"),
    ],
)
def test_a_parked_upload_that_turns_out_too_large_or_malformed_waits_no_longer(run, chunks, status, code):
    async def check():
        async with open_gateway(start_gate=True, maxBodySize=4000) as gateway:
            reader, writer = await gateway.connect()
            writer.write(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            await until(lambda: gateway.service.snapshot().waiting == 1)
            writer.write(chunks)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d" % status)
            await reader.readuntil(f'"code": "{code}"'.encode())
            assert gateway.service.state is State.STARTING
            assert gateway.service.snapshot().leases == ()
            writer.close()

    run(check())


def test_a_chunked_upload_that_comes_with_its_headers_and_is_over_the_limit_wakes_nothing(run):
    async def check():
        async with open_gateway(asleep=True, maxBodySize=10) as gateway:
            head = (
                f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            )
            answer = await gateway.say(head + "b\r\n12345678901\r\n0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413")
            assert gateway.runtime.starts == 0

    run(check())


def test_100_continue_is_sent_only_when_the_body_is_wanted(run):
    async def serve(request):
        assert "Expect" not in request.headers
        return web.Response(text=await request.text())

    async def check():
        async with open_gateway(serve, start_gate=True, maxBodySize=1000) as gateway:
            head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            reader, writer = await gateway.connect()
            writer.write((head % 2000).encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
            writer.close()
            assert gateway.runtime.starts == 0

            reader, writer = await gateway.connect()
            writer.write((head % 4).encode())
            await until(lambda: gateway.service.snapshot().waiting == 1)
            first = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
            assert not first.done()
            gateway.runtime.gate.set()
            assert await first == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert gateway.service.state is State.READY
            writer.write(b"body")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(4) == b"body"
            writer.close()

    run(check())


def test_a_gateway_that_drains_takes_no_new_requests(run):
    async def check():
        async with open_gateway() as gateway:
            gateway.proxy.draining = True
            async with gateway.ask() as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "shutting_down")
                assert answer.headers["Connection"] == "close"

    run(check())


def test_routes_are_replaced_as_a_whole(run):
    async def check():
        async with open_gateway() as gateway:
            gateway.proxy.routes = {"new.example.org": gateway.proxy.routes[HOST]}
            async with gateway.ask() as answer:
                assert answer.status == 404
            async with gateway.ask(host="new.example.org") as answer:
                assert answer.status == 200
            await until(lambda: len(gateway.ended) == 2)
            assert gateway.ended[1].service == HOST

    run(check())
