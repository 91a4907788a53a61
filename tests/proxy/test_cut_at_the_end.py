"""What a client makes of an answer that autostart has to cut when it stops."""

import asyncio

import pytest
from aiohttp import web
from gateways import HOST, open_gateway
from waiting import until


async def endless(request):
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"data: 1\n\n")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_is_cut_because_autostart_stops_does_not_look_complete(run, version):
    """In HTTP/1.0, as nginx speaks it by default, the end of the connection is that of the answer: a reset is not."""

    async def check():
        async with open_gateway(endless) as gateway:
            reader, writer = await gateway.connect()
            writer.write(f"GET / HTTP/{version}\r\nHost: {HOST}\r\n\r\n".encode())
            await reader.readuntil(b"data: 1\n\n")
            gateway.proxy.cut_answers()
            if version == "1.0":
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            else:
                assert not (await reader.read()).endswith(b"\n0\r\n\r\n")
            writer.close()
            await until(lambda: gateway.ended and not gateway.service.snapshot().leases)
            assert [(event.status, event.code) for event in gateway.ended] == [(200, "shutting_down")]

    run(check())


async def endless_body():
    yield b"x"
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "body", [lambda: None, lambda: b"x" * 10, endless_body], ids=["no", "small", "endless"]
)
def test_a_request_that_is_not_answered_yet_when_autostart_stops_is_told_so(run, body):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await is_over.wait()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            asking = asyncio.ensure_future(ask(gateway))
            await asked.wait()
            gateway.proxy.cut_answers()
            assert await asking == (503, "shutting_down")
            await until(lambda: gateway.ended and not gateway.service.snapshot().leases)
            assert [(event.status, event.code) for event in gateway.ended] == [(503, "shutting_down")]
            is_over.set()

    async def ask(gateway):
        async with gateway.ask("POST", data=body()) as answer:
            return answer.status, (await answer.json())["error"]["code"]

    asked, is_over = asyncio.Event(), asyncio.Event()
    run(check())
