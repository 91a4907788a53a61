"""What passes through the gateway, and how: methods, paths, headers, bodies both ways."""

import asyncio

import pytest
from aiohttp import web
from gateways import HOST, open_gateway
from waiting import until


async def echo(request):
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "target": request.raw_path,
            "headers": [[name, value] for name, value in request.headers.items()],
            "body": len(body),
        }
    )


def sent(answer: dict, name: str) -> list[str]:
    return [value for key, value in answer["headers"] if key.lower() == name.lower()]


def test_a_request_reaches_a_ready_service(run):
    async def check():
        async with open_gateway() as gateway, gateway.ask() as answer:
            assert (answer.status, await answer.text()) == (200, "hello")

    run(check())


@pytest.mark.parametrize(
    "target",
    ["/", "//a//b", "/a/../b/./c", "/%2F%2f%zz%C3%A9", "/a?", "/a?b=c&d=%20+;", "/a?x=/?%23", "/a%00b"],
)
def test_path_and_query_arrive_byte_for_byte(run, target):
    async def check():
        lines = []

        async def raw(reader, writer):
            lines.append(await reader.readuntil(b"\r\n"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        async with open_gateway(raw=raw) as gateway:
            lines.clear()
            answer = await gateway.say(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 204")
            assert lines == [f"GET {target} HTTP/1.1\r\n".encode()]

    run(check())


def test_absolute_form_names_the_service_and_is_sent_on_as_a_path(run):
    async def check():
        async with open_gateway(echo) as gateway:
            head = f"GET http://{HOST}:80/x?y HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n"
            answer = await gateway.say(head)
            assert b'"target": "/x?y"' in answer
            assert f'["Host", "{HOST}:80"]'.encode() in answer

    run(check())


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n",
        f"OPTIONS * HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        f"GET ftp://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        f"GET http://user@{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        f"GET /é HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "\x16\x03\x01 this is TLS\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: the-unexpected\r\nContent-Length: 0\r\n\r\n",
        f"CONNECT / HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        f"CONNECT {HOST}:80 HTTP/1.1\r\nHost: {HOST}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        f"POST / HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        f"GET / HTTP/1.1\nHost: {HOST}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST}:80x\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {HOST}:80:90\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: user@{HOST}\r\n\r\n",
    ],
)
def test_a_request_that_is_ambiguous_is_refused_and_wakes_nothing(run, head):
    async def check():
        async with open_gateway(asleep=True) as gateway:
            answer = await gateway.say(head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
            assert answer.partition(b" ")[2].startswith(b"400")
            assert b'"code": "bad_request"' in answer
            assert b"aiohttp" not in answer
            assert gateway.runtime.starts == 0

    run(check())


def test_after_a_request_that_is_not_understood_the_connection_ends(run):
    """What follows may be part of it: a request inside a body that was framed in another way."""

    async def check():
        async with open_gateway() as gateway:
            head = f"CONNECT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
            second = f"GET / HTTP/1.1\r\nHost: {HOST}:x\r\n\r\n"
            for first in (head, second):
                answer = await gateway.say(first + f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 400")
                assert b"HTTP/1.1 200" not in answer
            assert [event.path for event in gateway.ended] == ["/", "/"]

    run(check())


def test_a_websocket_is_not_asked_for_with_a_body_that_could_be_taken_for_its_frames(run):
    async def check():
        async with open_gateway(echo) as gateway:
            head = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            reader, writer = await gateway.connect()
            writer.write(f"{head}Content-Length: 4\r\n\r\nbody".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            answer = await reader.readuntil(b'"body": 4}')
            assert b'"Upgrade"' not in answer
            writer.close()

    run(check())


def test_the_trailer_of_a_body_never_becomes_a_header_of_the_next_request(run):
    """Proxies in front of us share connections between their clients, who must not write each other's headers."""

    async def check():
        async with open_gateway(echo) as gateway:
            head = f"POST /1 HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\n"
            head += f"Cookie: session=mine\r\n\r\nGET /2 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
            answer = await gateway.say(head)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"Connection: close" in answer
            assert b'"body": 3' in answer
            assert b"session=mine" not in answer

    run(check())


def test_a_header_with_an_underscore_does_not_pass_for_one_that_is_ours(run):
    """CGI and WSGI know no difference between the two."""

    async def check():
        async with open_gateway(echo, trusted=()) as gateway:
            headers = [
                ("X_Forwarded_For", "203.0.113.9"),
                ("x_real-ip", "203.0.113.9"),
                ("X_Request_Id", "x"),
            ]
            async with gateway.ask(headers=[*headers, ("My_Own", "1")]) as answer:
                seen = await answer.json()
                names = {name.lower() for name, _ in seen["headers"]}
                assert "my_own" in names
                assert not names & {"x_forwarded_for", "x_real-ip", "x_request_id"}

    run(check())


def test_hop_by_hop_headers_are_stripped_both_ways(run):
    async def raw(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Inner\r\nX-Inner: 1\r\n"
            b"Keep-Alive: timeout=9\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\nX-Outer: 2\r\n\r\nok"
        )

    seen: list[bytes] = []

    async def check():
        async with open_gateway(raw=raw) as gateway:
            seen.clear()
            headers = [
                ("Connection", "keep-alive, X-Hop"),
                ("X-Hop", "1"),
                ("Keep-Alive", "timeout=5"),
                ("TE", "trailers"),
                ("Upgrade", "h2c"),
                ("Proxy-Authorization", "Basic x"),
                ("X-End", "2"),
            ]
            async with gateway.ask(headers=headers) as answer:
                assert await answer.read() == b"ok"
                names = {name.lower() for name in answer.headers}
                assert "x-outer" in names
                assert not names & {"x-inner", "keep-alive", "proxy-authenticate", "upgrade", "connection"}
            lines = [line.partition(b":")[0].lower() for line in seen[0].split(b"\r\n")]
            assert b"x-end" in lines
            assert not {b"x-hop", b"keep-alive", b"te", b"upgrade", b"proxy-authorization"} & set(lines)

    run(check())


def test_cookies_location_and_encoding_come_back_as_they_were(run):
    async def serve(request):
        response = web.Response(status=302, body=b"\x1f\x8b not really gzip")
        response.headers.add("Set-Cookie", "a=1; Path=/")
        response.headers.add("Set-Cookie", "b=2; Path=/")
        response.headers["Location"] = "http://127.0.0.1:8001/next?x=%20"
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Server"] = "its own"
        return response

    async def check():
        async with open_gateway(serve) as gateway, gateway.ask(allow_redirects=False) as answer:
            assert answer.status == 302
            assert answer.headers.getall("Set-Cookie") == ["a=1; Path=/", "b=2; Path=/"]
            assert answer.headers["Location"] == "http://127.0.0.1:8001/next?x=%20"
            assert answer.headers["Content-Encoding"] == "gzip"
            assert answer.headers["Server"] == "its own"
            assert await answer.read() == b"\x1f\x8b not really gzip"

    run(check())


def test_no_content_type_is_made_up(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    async def check():
        async with open_gateway(raw=raw) as gateway, gateway.ask() as answer:
            assert await answer.read() == b"ok"
            assert "Content-Type" not in answer.headers

    run(check())


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_answers_without_a_body_have_none_and_the_connection_goes_on(run, method, status):
    async def raw(reader, writer):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            length = b"Content-Length: 5\r\n" if method == "HEAD" else b""
            writer.write(b"HTTP/1.1 %d Fine\r\nETag: x\r\n%s\r\n" % (status, length))

    async def check():
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect()
            for _ in range(2):
                writer.write(f"{method} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 %d Fine\r\n" % status)
                assert b"transfer-encoding" not in head.lower()
                assert (b"Content-Length: 5" in head) == (method == "HEAD")
            writer.close()

    run(check())


def test_interim_answers_are_passed_over(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )
        await reader.read()

    async def check():
        async with open_gateway(raw=raw) as gateway, gateway.ask() as answer:
            assert (answer.status, await answer.read()) == (200, b"ok")

    run(check())


def test_a_request_body_keeps_its_length_or_stays_chunked(run):
    async def pieces():
        for _ in range(10):
            yield b"x" * 1000

    async def check():
        async with open_gateway(echo) as gateway:
            async with gateway.ask("POST", data=b"x" * 10_000) as answer:
                seen = await answer.json()
                assert (sent(seen, "Content-Length"), sent(seen, "Transfer-Encoding")) == (["10000"], [])
                assert seen["body"] == 10_000
            async with gateway.ask("POST", data=pieces()) as answer:
                seen = await answer.json()
                assert (sent(seen, "Content-Length"), sent(seen, "Transfer-Encoding")) == ([], ["chunked"])
                assert seen["body"] == 10_000

    run(check())


def test_nothing_is_added_to_a_request_but_who_asks(run):
    async def raw(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    seen: list[bytes] = []

    async def check():
        async with open_gateway(raw=raw, trusted=()) as gateway:
            seen.clear()
            await gateway.say(f"GET /x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")
            names = [line.partition(b":")[0].lower() for line in seen[0].split(b"\r\n")[1:] if line]
            assert names == [
                b"host",
                b"x-forwarded-for",
                b"x-forwarded-proto",
                b"x-forwarded-host",
                b"x-request-id",
            ]

    run(check())


def test_bytes_that_are_no_utf8_pass_in_headers(run):
    async def raw(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nX-Name: caf\xe9\r\nContent-Length: 0\r\n\r\n")

    seen: list[bytes] = []

    async def check():
        async with open_gateway(raw=raw) as gateway:
            seen.clear()
            head = (
                f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Name: ".encode()
                + b"caf\xe9\r\nConnection: close\r\n\r\n"
            )
            answer = await gateway.say(head)
            assert "X-Name: café\r\n".encode() in answer
            assert "X-Name: café\r\n".encode() in seen[0]

    run(check())


def test_the_first_event_arrives_before_the_last_is_sent(run):
    async def serve(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await response.write(f"data: {number}\n\n".encode())
            await arrived.get()
        return response

    arrived: asyncio.Queue = asyncio.Queue()

    async def check():
        async with open_gateway(serve) as gateway, gateway.ask() as answer:
            for number in range(3):
                assert await answer.content.readuntil(b"\n\n") == f"data: {number}\n\n".encode()
                arrived.put_nowait(None)
            assert await answer.read() == b""

    run(check())


def test_the_head_of_an_answer_arrives_before_its_body_begins(run):
    async def serve(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await arrived.wait()
        return response

    arrived = asyncio.Event()

    async def check():
        async with open_gateway(serve) as gateway, gateway.ask() as answer:
            assert answer.status == 200
            arrived.set()

    run(check())


def test_the_first_byte_of_an_upload_arrives_before_the_last_is_sent(run):
    async def serve(request):
        arrived.set_result(await request.content.readany())
        return web.Response(text=str(len(await request.read())))

    async def pieces():
        yield b"first"
        assert await asyncio.shield(arrived) == b"first"
        yield b"last"

    async def check():
        nonlocal arrived
        arrived = asyncio.get_running_loop().create_future()
        async with open_gateway(serve) as gateway, gateway.ask("POST", data=pieces()) as answer:
            assert await answer.text() == "4"

    arrived: asyncio.Future
    run(check())


def test_an_answer_that_comes_before_the_upload_has_ended_reaches_the_client(run):
    async def raw(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(10)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nhuge")
        await writer.drain()
        await reader.read()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect()
            head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000\r\n\r\n"
            writer.write(head.encode() + b"x" * 5000)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413 Too Large")
            assert b"Connection: close" in answer
            assert await reader.readexactly(4) == b"huge"
            writer.close()

    run(check())


def test_an_upload_goes_on_after_its_answer_has_begun(run):
    async def serve(request):
        response = web.StreamResponse()
        await response.prepare(request)
        async for data in request.content.iter_any():
            await response.write(data)
        return response

    async def pieces():
        yield b"first"
        await begun.wait()
        yield b"last"

    begun = asyncio.Event()

    async def check():
        async with open_gateway(serve) as gateway, gateway.ask("POST", data=pieces()) as answer:
            assert await answer.content.readexactly(5) == b"first"
            begun.set()
            assert await answer.read() == b"last"

    run(check())


def test_pipelined_requests_are_answered_in_order(run):
    async def check():
        async with open_gateway(echo) as gateway:
            head = f"GET /%d HTTP/1.1\r\nHost: {HOST}\r\n%s\r\n"
            answer = await gateway.say(head % (1, "") + head % (2, "") + head % (3, "Connection: close\r\n"))
            assert answer.count(b"HTTP/1.1 200") == 3
            assert answer.index(b'"/1"') < answer.index(b'"/2"') < answer.index(b'"/3"')

    run(check())


def test_http_1_0_is_answered_without_chunks_and_closed(run):
    async def serve(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one")
        await response.write(b"two")
        return response

    async def check():
        async with open_gateway(serve) as gateway:
            answer = await gateway.say(f"GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert b"transfer-encoding" not in head.lower()
            assert body == b"onetwo"

    run(check())


def test_an_ended_request_is_told_of(run):
    async def check():
        async with open_gateway(echo) as gateway:
            async with gateway.ask("POST", "/x?key=secret", data=b"12345") as answer:
                length = len(await answer.read())
            await until(lambda: gateway.ended)
            (event,) = gateway.ended
            assert (event.service, event.method, event.path) == (HOST, "POST", "/x")
            assert (event.status, event.code, event.bytes_in, event.bytes_out) == (200, "", 5, length)
            assert event.request_id == answer.headers["X-Request-Id"]
            assert (event.waited_s, event.websocket, event.failed_auth) == (0.0, False, False)

    run(check())
