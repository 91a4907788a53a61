"""Requests and answers that two readers could take for different things: refused, or passed on in one meaning only."""

import asyncio
import re
import socket

import pytest
from gateways import HOST, open_gateway

from autostart.proxy.connections import Connection

TO = f"Host: {HOST}\r\n".encode()
GET = b"GET /a HTTP/1.1\r\n" + TO
POST = b"POST /a HTTP/1.1\r\n" + TO
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
BEHIND = b"GET /behind HTTP/1.1\r\n" + TO + b"\r\n"


def coded(header: bytes) -> bytes:
    return POST + header + b"\r\n\r\n0\r\n\r\n"


def sized(length: bytes) -> bytes:
    return POST + b"Content-Length: " + length + b"\r\n\r\nhello"


def with_header(line: bytes) -> bytes:
    return POST + line + b"Content-Length: 0\r\n\r\n"


REFUSED = {
    "length and coding": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "coding twice": coded(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "coding twice, another": coded(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    "coding list": coded(b"Transfer-Encoding: chunked, chunked"),
    "coding before": coded(b"Transfer-Encoding: identity, chunked"),
    "coding behind": coded(b"Transfer-Encoding: chunked, identity"),
    "coding unknown": coded(b"Transfer-Encoding: xchunked"),
    "coding identity": coded(b"Transfer-Encoding: identity"),
    "coding quoted": coded(b'Transfer-Encoding: "chunked"'),
    "coding parameter": coded(b"Transfer-Encoding: chunked;q=1"),
    "coding empty": POST + b"Transfer-Encoding:\r\n\r\n",
    "coding behind a vertical tab": coded(b"Transfer-Encoding: \x0bchunked"),
    "coding folded": coded(b"Transfer-Encoding:\r\n chunked"),
    "coding, space before the colon": coded(b"Transfer-Encoding : chunked"),
    "coding, space before the name": coded(b" Transfer-Encoding: chunked"),
    "coding in HTTP/1.0": b"POST /a HTTP/1.0\r\n" + TO + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length with plus": sized(b"+5"),
    "length with minus": sized(b"-5"),
    "length with a space": sized(b"5 5"),
    "length list": sized(b"5, 5"),
    "length hexadecimal": sized(b"0x5"),
    "length with an underscore": sized(b"5_0"),
    "length with a point": sized(b"5.0"),
    "length with a non-breaking space": sized(b"5\xa0"),
    "length empty": sized(b""),
    "length over 64 bits": sized(b"18446744073709551621"),
    "length twice": sized(b"5\r\nContent-Length: 5"),
    "length twice, another": sized(b"5\r\nContent-Length: 6"),
    "length, space before the colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "bare LF in a header": with_header(b"X-A: b\nX-B: c\r\n"),
    "bare LF at the end": POST + b"Content-Length: 0\r\n\n",
    "bare LF everywhere": with_header(b"").replace(b"\r\n", b"\n"),
    "bare CR in a header": with_header(b"X-A: b\rX-B: c\r\n"),
    "CR twice": with_header(b"X-A: b\r\r\n"),
    "NUL in a value": with_header(b"X-A: b\0c\r\n"),
    "NUL in a name": with_header(b"X\0A: b\r\n"),
    "control character": with_header(b"X-A: b\x01c\r\n"),
    "folded header": with_header(b"X-A: b\r\n c\r\n"),
    "folded header that hides a coding": with_header(b"X-A: b\r\n\tTransfer-Encoding: chunked\r\n"),
    "no colon": with_header(b"X-A\r\n"),
    "empty name": with_header(b": b\r\n"),
    "name with brackets": with_header(b"X(A): b\r\n"),
    "first header with a space": b"GET /a HTTP/1.1\r\n " + TO + b"\r\n",
    "tabs in the request line": b"GET\t/a\tHTTP/1.1\r\n" + TO + b"\r\n",
    "space behind the version": b"GET /a HTTP/1.1 \r\n" + TO + b"\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n" + TO + b"\r\n",
    "NUL in the target": b"GET /a\0 HTTP/1.1\r\n" + TO + b"\r\n",
    "CR in the target": b"GET /a\rb HTTP/1.1\r\n" + TO + b"\r\n",
    "fragment in the target": b"GET /a#b HTTP/1.1\r\n" + TO + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + TO + b"\r\n",
    "chunk size with plus": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size with minus": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "space before a chunk size": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "space behind a chunk size": CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n",
    "chunk size over 64 bits": CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk size empty": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk size too small": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "chunk size too large": CHUNKED + b"7\r\nhello\r\n0\r\n\r\n",
    "chunk with LF only": CHUNKED + b"5\nhello\n0\n\n",
    "chunk size with LF only": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "chunk data with LF only": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "last chunk with LF only": CHUNKED + b"5\r\nhello\r\n0\n\r\n",
    "end with LF only": CHUNKED + b"5\r\nhello\r\n0\r\n\n",
    "bare CR behind a chunk size": CHUNKED + b"5\rhello\r\n0\r\n\r\n",
    "LF in a chunk extension": CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "CRLF in a quoted chunk extension": CHUNKED + b'5;a="\r\nhello\r\n0\r\n\r\n',
    "no last chunk": CHUNKED + b"5\r\nhello\r\n",
    "trailer with a length": CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 100\r\n\r\n",
    "trailer with a coding": CHUNKED + b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer with a bare LF": CHUNKED + b"5\r\nhello\r\n0\r\nX: a\nY: b\r\n\r\n",
    "user in the authority": b"GET http://u@" + HOST.encode() + b"/a HTTP/1.1\r\n" + TO + b"\r\n",
    "no port in the authority": b"GET http://" + HOST.encode() + b":x/a HTTP/1.1\r\n" + TO + b"\r\n",
    "no host in the authority": b"GET http:///a HTTP/1.1\r\n" + TO + b"\r\n",
    "absolute form without Host": b"GET http://" + HOST.encode() + b"/a HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: other\r\n\r\n",
    "no Host": b"GET /a HTTP/1.1\r\n\r\n",
    "user in Host": b"GET /a HTTP/1.1\r\nHost: u@" + HOST.encode() + b"\r\n\r\n",
    "path in Host": b"GET /a HTTP/1.1\r\nHost: " + HOST.encode() + b"/x\r\n\r\n",
    "no port in Host": b"GET /a HTTP/1.1\r\nHost: " + HOST.encode() + b":80x\r\n\r\n",
    "endless port in Host": b"GET /a HTTP/1.1\r\nHost: " + HOST.encode() + b":99999999\r\n\r\n",
    "list in Host": b"GET /a HTTP/1.1\r\nHost: " + HOST.encode() + b", other\r\n\r\n",
    "HTTP/0.9": b"GET /a\r\n",
    "HTTP/1.2": b"GET /a HTTP/1.2\r\n" + TO + b"\r\n",
    "HTTP/2.0": b"GET /a HTTP/2.0\r\n" + TO + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "method with a comma": b"G,T /a HTTP/1.1\r\n" + TO + b"\r\n",
    "method in small letters": b"get /a HTTP/1.1\r\n" + TO + b"\r\n",
    "method without end": b"A" * 5000 + b" /a HTTP/1.1\r\n" + TO + b"\r\n",
    "CONNECT": b"CONNECT " + HOST.encode() + b":80 HTTP/1.1\r\n" + TO + b"\r\n",
}

OTHER_VERSIONS = {
    "none": b"GET /a\r\n" + TO + b"\r\n",
    "none, no headers": b"GET /a\r\n\r\n",
    "none, bare LF": b"GET /a\nHost: " + HOST.encode() + b"\r\n\r\n",
    "0.9": b"GET /a HTTP/0.9\r\n" + TO + b"\r\n",
    "0.9 that goes on": b"GET /a HTTP/0.9\r\n" + TO + b"Connection: keep-alive\r\n\r\n" + BEHIND,
    "2.0": b"GET /a HTTP/2.0\r\n" + TO + b"\r\n",
    "2.0 with a coding": coded(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/2.0"),
    "2.0 that goes on": b"GET /a HTTP/2.0\r\n" + TO + b"Connection: keep-alive\r\n\r\n" + BEHIND,
}

LENGTH_0, LENGTH_5, CODED = [b"content-length: 0"], [b"content-length: 5"], [b"transfer-encoding: chunked"]

ACCEPTED = {
    "plain": (GET + b"\r\n", [], b"", True),
    "no body": (POST + b"\r\n", LENGTH_0, b"", True),
    "length with tabs": (sized(b"\t5\t"), LENGTH_5, b"hello", True),
    "length with zeros": (sized(b"005"), LENGTH_5, b"hello", True),
    "body of a GET": (GET + b"Content-Length: 5\r\n\r\nhello", LENGTH_5, b"hello", True),
    "coding in capitals": (coded(b"TRANSFER-ENCODING:\t CHUNKED "), CODED, b"", False),
    "chunk extension": (CHUNKED + b'5;a="b"\r\nhello\r\n0\r\n\r\n', CODED, b"hello", False),
    "chunk size with zeros": (CHUNKED + b"0" * 100 + b"5\r\nhello\r\n000\r\n\r\n", CODED, b"hello", False),
    "trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", CODED, b"hello", False),
    "length that is said to be hop-by-hop": (
        POST + b"Connection: keep-alive, content-length\r\nContent-Length: 5\r\n\r\nhello",
        LENGTH_5,
        b"hello",
        True,
    ),
    "underscores": (with_header(b"Transfer_Encoding: chunked\r\nContent_Length: 9\r\n"), LENGTH_0, b"", True),
    "another upgrade": (GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", [], b"", False),
    "another upgrade with a body": (
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
        LENGTH_5,
        b"hello",
        False,
    ),
    "absolute form": (
        b"GET http://" + HOST.encode() + b"/a HTTP/1.1\r\nHost: other\r\n\r\n",
        [],
        b"",
        True,
    ),
}


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
def test_what_is_ambiguous_gets_one_refusal_and_nothing_behind_it_is_heard(run, attack):
    async def check():
        async with open_gateway(asleep=True) as gateway:
            said = await gateway.say(attack + BEHIND)
            statuses = re.findall(rb"^HTTP/1\.\d (\d+)", said, re.MULTILINE)
            assert statuses in ([b"400"], [b"431"])
            assert gateway.runtime.starts == 0
            assert b"/behind" not in {event.path.encode() for event in gateway.ended}

    run(check())


@pytest.mark.parametrize("attack", OTHER_VERSIONS.values(), ids=OTHER_VERSIONS)
def test_what_is_neither_http_1_1_nor_1_0_is_refused_in_what_everybody_reads(run, attack):
    async def check():
        async with open_gateway(asleep=True) as gateway:
            said = await gateway.say(attack)
            assert re.findall(rb"^HTTP/(\S+) (\d+)", said, re.MULTILINE) in (
                [(b"1.0", b"400")],
                [(b"1.1", b"400")],
            )
            assert gateway.runtime.starts == 0

    run(check())


@pytest.mark.parametrize(("attack", "framing", "body", "goes_on"), ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_let_through_is_one_request_in_one_framing(run, attack, framing, body, goes_on):
    seen: list = []

    async def raw(reader, writer):
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            names = (b"content-length", b"transfer-encoding", b"content_length", b"transfer_encoding")
            found = [line.lower() for line in lines[1:] if line.lower().startswith(names)]
            data = b""
            if found == CODED:
                while size := int(await reader.readline(), 16):
                    data += (await reader.readexactly(size + 2))[:-2]
                assert await reader.readline() == b"\r\n"
            elif found:
                data = await reader.readexactly(int(found[0].partition(b":")[2]))
            seen.append((lines[0].split()[1], found, data))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def check():
        async with open_gateway(raw=raw) as gateway:
            seen.clear()
            last = BEHIND.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            said = await gateway.say(attack + last)
            expected = [(b"/a", framing, body), (b"/behind", [], b"")]
            assert seen == (expected if goes_on else expected[:1])
            assert said.count(b"HTTP/1.1 200 OK") == len(seen)

    run(check())


@pytest.mark.parametrize(
    "line", [b"Authorization: Bearer s3cret\x01", b"Cookie : s3cret", b"s3cret", b"s3cret\x00: x"]
)
def test_what_was_not_understood_is_quoted_neither_to_the_client_nor_in_the_log(run, caplog, line):
    async def check():
        async with open_gateway() as gateway:
            said = await gateway.say(b"GET /?key=s3cret HTTP/1.1\r\n" + TO + line + b"\r\n\r\n")
            assert said.split()[1] == b"400"
            assert b"s3cret" not in said

    with caplog.at_level("DEBUG", "autostart"):
        run(check())
    assert "refused what 127.0.0.1 sent" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_client_cannot_have_headers_dropped_that_are_meant_for_the_service(run):
    """By listing them in Connection: the service would get another request than the one that was let in."""
    seen: list[bytes] = []

    async def raw(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def check():
        async with open_gateway(raw=raw) as gateway:
            seen.clear()
            listed = b"Connection: close, authorization, host, x-forwarded-for\r\nAuthorization: x\r\n\r\n"
            await gateway.say(GET + listed)
            names = {line.partition(b":")[0].lower() for line in seen[0].split(b"\r\n")}
            assert {b"authorization", b"host", b"x-forwarded-for"} <= names

    run(check())


OK = b"HTTP/1.1 200 OK\r\n"
GOOD = OK + b"Content-Length: 2\r\n\r\nok"
CODED_OK = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
EVIL = OK + b"Content-Length: 4\r\n\r\nEVIL"

ANSWERS = {
    "length and coding": (
        [OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
        502,
    ),
    "two lengths": ([OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk"], 502),
    "length with minus": ([OK + b"Content-Length: -1\r\n\r\nok"], 502),
    "coding before": ([OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"], 502),
    "coding unknown": ([OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"], 502),
    "chunk size": ([OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n"], 502),
    "chunk size later": ([OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"zz\r\n"], None),
    "chunk with LF only": ([OK + b"Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n"], 502),
    "body of a 204": ([b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", b"EVIL"], 204),
    "body of a 304": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n" + EVIL], 304),
    "body of a 304 later": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n", EVIL], 304),
    "interim answers": ([b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 200 + GOOD], 200),
    "101 unasked": ([b"HTTP/1.1 101 Fine\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n" + EVIL], 502),
    "101 without Upgrade": ([b"HTTP/1.1 101 Fine\r\n\r\n" + EVIL], 502),
    "status 099": ([b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok"], 502),
    "status 2000": ([b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok"], 502),
    "HTTP/0.9": ([b"<html>ok</html>"], 502),
    "bare CR": ([OK + b"X: a\rY: b\r\nContent-Length: 2\r\n\r\nok"], 502),
    "bare CR in the reason": ([b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok"], 502),
    "NUL": ([OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok"], 502),
    "NUL in the reason": ([b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok"], 502),
    "control character": ([OK + b"X: a\x01b\r\nContent-Length: 2\r\n\r\nok"], 502),
    "space in a name": ([OK + b"Content-Length : 2\r\n\r\nok"], 502),
    "folded header": ([OK + b"X: a\r\n Content-Length: 9\r\nContent-Length: 2\r\n\r\nok"], 200),
    "bare LF": ([GOOD.replace(b"\r\n", b"\n")], 200),
    "trailer": ([CODED_OK.replace(b"0\r\n\r\n", b"0\r\nSet-Cookie: a=EVIL\r\n\r\n")], 200),
    "answer behind": ([GOOD + EVIL], 200),
    "answer later": ([GOOD, EVIL], 200),
    "part of an answer later": ([GOOD, EVIL[:20]], 200),
    "interim answer later": ([GOOD, b"HTTP/1.1 100 Continue\r\n\r\n"], 200),
    "line later": ([GOOD, b"\r\n"], 200),
    "answer behind chunks": ([CODED_OK + EVIL], 200),
    "answer behind chunks later": ([CODED_OK, EVIL], 200),
}


@pytest.mark.parametrize(("parts", "status"), ANSWERS.values(), ids=ANSWERS)
def test_nothing_of_an_answer_is_left_for_the_next_client(run, caplog, parts, status):
    """None stands for an answer that begins, and is cut."""
    used_again: list[bytes] = []

    async def raw(reader, writer):
        has_misbehaved = False
        while True:
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            if has_misbehaved:
                used_again.append(path)
            if path == b"/first":
                has_misbehaved = True
                writer.write(parts[0])
                for part in parts[1:]:
                    await said.wait()
                    writer.write(part)
                    await writer.drain()
                    said.clear()
                    left.set()
            else:
                writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(path) + path)

    said, left = asyncio.Event(), asyncio.Event()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            reader, writer = await gateway.connect()
            writer.write(b"GET /first HTTP/1.1\r\n" + TO + b"Connection: close\r\n\r\n")
            first = await reader.readuntil(b"\r\n\r\n")
            said.set()
            if len(parts) > 1:
                await left.wait()
            first += await reader.read()
            assert first.startswith(b"HTTP/1.1 %d " % (status or 200))
            assert b"EVIL" not in first
            assert len(re.findall(rb"\n(content-length|transfer-encoding)", first.lower())) <= 1
            assert status is not None or not first.endswith(b"0\r\n\r\n")
            for path in (b"/second", b"/third"):
                answer = await gateway.say(b"GET %s HTTP/1.1\r\n%sConnection: close\r\n\r\n" % (path, TO))
                assert answer.endswith(b"\r\n\r\n" + path)
            assert status == 200 or not used_again
            writer.close()

    run(check())
    assert "mistake" not in caplog.text


@pytest.mark.parametrize("later", [False, True])
def test_the_body_of_an_answer_to_head_is_not_left_for_the_next_client(run, later):
    async def raw(reader, writer):
        while True:
            line = await reader.readuntil(b"\r\n\r\n")
            if line.startswith(b"HEAD"):
                writer.write(OK + b"Content-Length: 40\r\n\r\n" + (b"" if later else EVIL))
                if later:
                    await asked.wait()
                    writer.write(EVIL)
                    await writer.drain()
                    left.set()
            else:
                writer.write(GOOD)

    asked, left = asyncio.Event(), asyncio.Event()

    async def check():
        async with open_gateway(raw=raw) as gateway:
            head = await gateway.say(b"HEAD /first HTTP/1.1\r\n" + TO + b"Connection: close\r\n\r\n")
            assert head.endswith(b"\r\n\r\n")
            asked.set()
            if later:
                await left.wait()
            answer = await gateway.say(b"GET /second HTTP/1.1\r\n" + TO + b"Connection: close\r\n\r\n")
            assert answer.endswith(b"\r\n\r\nok")

    run(check())


def test_a_kept_connection_with_something_to_read_is_not_used(run):
    """The loop may not have read yet what came unasked."""

    async def check():
        ours, theirs = socket.socketpair()
        with theirs:
            transport, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(asyncio.get_running_loop()), sock=ours
            )
            connection.is_idle = True
            assert connection.is_connected()
            theirs.send(EVIL)
            assert not connection.is_connected()
            connection.is_idle = False
            assert connection.is_connected()
            transport.close()

    run(check())


def test_a_kept_connection_that_speaks_unasked_is_closed(run):
    async def check():
        ours, theirs = socket.socketpair()
        with theirs:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(asyncio.get_running_loop()), sock=ours
            )
            connection.is_idle = True
            connection.data_received(b"H")
            assert not connection.is_connected()
            await asyncio.sleep(0)

    run(check())
