"""Who is let in, what stays quiet, and whose word is believed."""

import asyncio
import base64

import pytest
from aiohttp import web
from gateways import HOST, open_gateway
from waiting import until

from autostart import errors
from autostart.auth import Authenticator, generate_key, hash_key
from autostart.config import Auth
from autostart.lifecycle import State

KEY = generate_key()
BEARER = [("Authorization", f"Bearer {KEY}")]
WRONG = [("Authorization", "Basic " + base64.b64encode(b"alice:wrong").decode())]
ORIGIN = "https://app.example.org"


def authenticator(**options) -> Authenticator:
    return Authenticator(
        Auth.model_validate({"apiKeys": [{"name": "meetings", "hash": hash_key(KEY)}]} | options)
    )


async def tell_authorization(request):
    return web.Response(text=request.headers.get("Authorization", "none"))


@pytest.mark.parametrize("headers", [[], WRONG, [("Authorization", "Bearer wrong")]])
def test_without_valid_credentials_nothing_wakes(run, headers):
    async def check():
        async with open_gateway(asleep=True, authenticator=authenticator()) as gateway:
            for path in ("/", "/.autostart/state"):
                async with gateway.ask("POST", path, headers=headers, data=b"x") as answer:
                    assert (answer.status, (await answer.json())["error"]["code"]) == (401, "unauthorized")
                    assert len(answer.headers.getall("WWW-Authenticate")) == 2
            assert gateway.service.state is State.STOPPED
            assert [event.failed_auth for event in gateway.ended] == [True, True]

    run(check())


def test_somebody_known_who_may_not_use_this_service_is_forbidden(run):
    async def check():
        door = authenticator(allow=["somebody else"])
        async with open_gateway(asleep=True, authenticator=door) as gateway:
            async with gateway.ask(headers=BEARER) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (403, "forbidden")
            assert gateway.runtime.starts == 0

    run(check())


def test_two_authorization_headers_are_refused(run):
    async def check():
        async with open_gateway(asleep=True, authenticator=authenticator()) as gateway:
            async with gateway.ask(headers=[*BEARER, *WRONG]) as answer:
                assert answer.status == 400
            assert gateway.runtime.starts == 0

    run(check())


@pytest.mark.parametrize(
    ("has_auth", "forward", "expected"),
    [(True, False, "none"), (True, True, f"Bearer {KEY}"), (False, False, f"Bearer {KEY}")],
    ids=["checked here", "meant for both", "open to all"],
)
def test_credentials_go_on_only_where_they_are_meant_for_the_service(run, has_auth, forward, expected):
    async def check():
        door = authenticator() if has_auth else None
        async with open_gateway(
            tell_authorization, authenticator=door, forward_credentials=forward
        ) as gateway:
            async with gateway.ask(headers=BEARER) as answer:
                assert await answer.text() == expected
            await until(lambda: gateway.ended)
            assert gateway.ended[0].identity == ("meetings" if has_auth else None)
            assert KEY not in repr(gateway.events)

    run(check())


def test_who_waits_is_named_without_credentials_or_query(run):
    async def check():
        async with open_gateway(start_gate=True, authenticator=authenticator()) as gateway:
            asked = asyncio.ensure_future(gateway.ask("GET", "/v1/models?key=x", headers=BEARER).__aenter__())
            await until(lambda: gateway.service.snapshot().waiting)
            (lease,) = gateway.service.snapshot().leases
            assert lease.by == "meetings@127.0.0.1 GET /v1/models"
            gateway.runtime.gate.set()
            (await asked).close()

    run(check())


@pytest.mark.parametrize(
    ("method", "path", "agent"),
    [
        ("GET", "/favicon.ico", "x"),
        ("GET", "/apple-touch-icon-precomposed.png", "x"),
        ("GET", "/health/ready", "x"),
        ("HEAD", "/healthz", "x"),
        ("OPTIONS", "/", "x"),
        ("GET", "/", "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)"),
        ("GET", "/", "Blackbox Exporter/0.25.0"),
        ("GET", "/", "my-own monitor"),
    ],
)
def test_quiet_requests_wake_nothing_and_need_no_credentials_for_that_answer(run, method, path, agent):
    async def check():
        async with open_gateway(asleep=True, quiet=quiet, authenticator=authenticator()) as gateway:
            async with gateway.ask(method, path, headers=[("User-Agent", agent)]) as answer:
                assert answer.status == 503
                if method != "HEAD":
                    assert (await answer.json())["error"]["code"] == "asleep"
            assert gateway.service.state is State.STOPPED

    quiet = {"userAgents": ["My-Own*"]} if agent.startswith("my-own") else {}
    run(check())


def test_a_program_that_asks_for_health_before_it_sends_work_wakes_the_service(run):
    async def check():
        async with open_gateway(asleep=True) as gateway:
            async with gateway.ask("GET", "/health") as answer:
                assert answer.status == 200
            assert gateway.runtime.starts == 1

    run(check())


@pytest.mark.parametrize(("method", "body"), [("GET", b"asleep\n"), ("HEAD", b"")])
def test_a_monitor_on_its_own_path_hears_that_a_sleeping_service_is_well(run, method, body):
    quiet = {"monitorPath": "/health"}

    async def check():
        async with open_gateway(asleep=True, quiet=quiet, authenticator=authenticator()) as gateway:
            async with gateway.ask(method, "/health?x=1") as answer:
                assert (answer.status, await answer.read()) == (200, body)
                assert answer.headers["Cache-Control"] == "no-store"
            await until(lambda: gateway.ended)
            assert (gateway.ended[0].status, gateway.ended[0].code) == (200, "")
            assert gateway.runtime.starts == 0
            async with gateway.ask("POST", "/health", data=b"x") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "asleep")

    run(check())


def test_a_monitor_hears_of_a_start_that_failed_and_of_what_the_ready_service_says(run):
    async def check():
        async with open_gateway(asleep=True, quiet={"monitorPath": "/health"}) as gateway:
            gateway.runtime.failure = errors.Exited("the model server", 3)
            async with gateway.ask() as answer:
                assert answer.status == 503
            async with gateway.ask("GET", "/health") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (503, "asleep")
            gateway.runtime.failure = None
            await gateway.service.start("the test")
            used = gateway.service.snapshot().last_used_s
            async with gateway.ask("GET", "/health") as answer:
                assert (answer.status, await answer.text()) == (200, "hello")
            assert gateway.service.snapshot().last_used_s == used

    run(check())


def test_a_quiet_request_to_a_ready_service_is_authenticated_forwarded_and_not_counted(run):
    async def check():
        async with open_gateway(authenticator=authenticator()) as gateway:
            used = gateway.service.snapshot().last_used_s
            async with gateway.ask("GET", "/favicon.ico") as answer:
                assert answer.status == 401
            async with gateway.ask("GET", "/favicon.ico", headers=BEARER) as answer:
                assert (answer.status, await answer.text()) == (200, "hello")
            await until(lambda: len(gateway.ended) == 2)
            assert gateway.service.snapshot().last_used_s == used

    run(check())


CORS = {"origins": [ORIGIN], "credentials": True}
PREFLIGHT = [("Origin", ORIGIN), ("Access-Control-Request-Method", "POST")]


def test_a_preflight_is_answered_without_waking_or_credentials(run):
    async def check():
        async with open_gateway(asleep=True, cors=CORS, authenticator=authenticator()) as gateway:
            async with gateway.ask("OPTIONS", headers=PREFLIGHT) as answer:
                assert (answer.status, await answer.read()) == (204, b"")
                assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
                assert answer.headers["Access-Control-Allow-Credentials"] == "true"
                assert "POST" in answer.headers["Access-Control-Allow-Methods"]
                assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
                assert answer.headers["Access-Control-Max-Age"] == "600"
                assert answer.headers["Vary"] == "Origin"
            assert gateway.service.state is State.STOPPED

    run(check())


def test_a_strange_origin_gets_no_permission(run):
    async def check():
        async with open_gateway(asleep=True, cors=CORS) as gateway:
            headers = [("Origin", "https://evil.example.org"), PREFLIGHT[1]]
            async with gateway.ask("OPTIONS", headers=headers) as answer:
                assert "Access-Control-Allow-Origin" not in answer.headers

    run(check())


def test_cors_headers_are_the_gateways_on_errors_and_on_answers_of_the_service(run):
    async def serve(request):
        return web.Response(headers={"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Foo": "x"})

    async def check():
        async with open_gateway(serve, cors=CORS, authenticator=authenticator()) as gateway:
            origin = [("Origin", ORIGIN)]
            async with gateway.ask(headers=origin) as answer:
                assert answer.status == 401
                assert answer.headers.getall("Access-Control-Allow-Origin") == [ORIGIN]
            async with gateway.ask(headers=[*origin, *BEARER]) as answer:
                assert answer.status == 200
                assert answer.headers.getall("Access-Control-Allow-Origin") == [ORIGIN]
                assert "Access-Control-Allow-Foo" not in answer.headers

    run(check())


def test_without_cors_in_the_config_it_is_the_services_own_affair(run):
    async def serve(request):
        return web.Response(headers={"Access-Control-Allow-Origin": "*"})

    async def check():
        async with open_gateway(serve) as gateway, gateway.ask("OPTIONS", headers=PREFLIGHT) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "*")

    run(check())


FORWARDED = [
    ("X-Forwarded-For", "203.0.113.9, 10.1.1.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "outer.example.org"),
    ("X-Real-IP", "203.0.113.9"),
    ("Forwarded", "for=203.0.113.9"),
    ("X-Request-Id", "given-1"),
]


async def tell_headers(request):
    names = (
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Real-IP",
        "Forwarded",
        "X-Request-Id",
    )
    return web.json_response({name: request.headers.getall(name, []) for name in names})


def test_a_trusted_proxy_is_believed_and_added_to(run):
    async def check():
        async with open_gateway(tell_headers, trusted=("127.0.0.0/8", "10.0.0.0/8")) as gateway:
            async with gateway.ask(headers=FORWARDED) as answer:
                told = await answer.json()
                assert told["X-Forwarded-For"] == ["203.0.113.9, 10.1.1.1, 127.0.0.1"]
                assert told["X-Forwarded-Proto"] == ["https"]
                assert told["X-Forwarded-Host"] == ["outer.example.org"]
                assert told["X-Real-IP"] == ["203.0.113.9"]
                assert told["X-Request-Id"] == ["given-1"]
                assert answer.headers.getall("X-Request-Id") == ["given-1"]
            await until(lambda: gateway.ended)
            assert gateway.ended[0].client == "203.0.113.9"

    run(check())


def test_a_strangers_word_counts_for_nothing(run):
    async def check():
        async with open_gateway(tell_headers, trusted=("10.0.0.0/8",)) as gateway:
            async with gateway.ask(headers=FORWARDED) as answer:
                told = await answer.json()
                assert told["X-Forwarded-For"] == ["127.0.0.1"]
                assert told["X-Forwarded-Proto"] == ["http"]
                assert told["X-Forwarded-Host"] == [HOST]
                assert (told["X-Real-IP"], told["Forwarded"]) == ([], [])
                assert told["X-Request-Id"] == [answer.headers["X-Request-Id"]]
                assert told["X-Request-Id"] != ["given-1"]
            await until(lambda: gateway.ended)
            assert gateway.ended[0].client == "127.0.0.1"

    run(check())


@pytest.mark.parametrize(("trusted", "expected"), [(("unix",), "203.0.113.9"), ((), "unix")])
def test_a_unix_sockets_peer_is_called_unix(run, trusted, expected):
    async def check():
        async with open_gateway(tell_headers, trusted=trusted) as gateway:
            reader, writer = await asyncio.open_unix_connection(gateway.unix)
            head = (
                f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode())
            answer = await reader.read()
            writer.close()
            assert (b'"X-Forwarded-For": ["203.0.113.9"]' in answer) == (trusted == ("unix",))
            assert gateway.ended[0].client == expected

    run(check())


@pytest.mark.parametrize("given", ["x" * 129, "with space", "caf\u00e9", ""])
def test_an_insane_request_id_is_replaced(run, given):
    async def check():
        async with (
            open_gateway(tell_headers) as gateway,
            gateway.ask(headers=[("X-Request-Id", given)]) as answer,
        ):
            made = answer.headers["X-Request-Id"]
            assert made not in {given, ""}
            assert (await answer.json())["X-Request-Id"] == [made]

    run(check())
