"""Requests that are broken at random: each is refused, or reaches the service as what a strict reader takes it for."""

import asyncio
import contextlib
import re
from collections.abc import Iterator

import pytest
import uvloop
from gateways import HOST, open_gateway
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autostart.proxy.server import Patience

HASTY = Patience(header_s=0.01, keep_alive_s=0.01)
TO = f"Host: {HOST}\r\n".encode()
BEHIND = b"GET /NUMBER/behind HTTP/1.1\r\n" + TO + b"\r\n"
WHOLE = [
    b"GET /NUMBER?b=c HTTP/1.1\r\n" + TO + b"Accept: */*\r\n\r\n" + BEHIND,
    b"HEAD /NUMBER HTTP/1.1\r\n" + TO + b"\r\n",
    b"GET http://" + HOST.encode() + b"/NUMBER HTTP/1.1\r\n" + TO + b"\r\n",
    b"GET /NUMBER HTTP/1.0\r\n" + TO + b"Connection: keep-alive\r\n\r\n" + BEHIND,
    b"POST /NUMBER HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (TO, len(BEHIND), BEHIND),
    b"POST /NUMBER HTTP/1.1\r\n" + TO + b"Content-Length: 5\r\n\r\nhello" + BEHIND,
    b"PUT /NUMBER HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (TO, len(BEHIND), BEHIND),
    b"POST /NUMBER HTTP/1.1\r\n" + TO + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n" + BEHIND,
    b"POST /NUMBER HTTP/1.1\r\n" + TO + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /NUMBER HTTP/1.1\r\n" + TO + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + BEHIND,
]  # fmt: skip
PIECES = [
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\t", b" ", b":", b",", b";", b"\x0b", b"\x7f", b"\x80", b"\xff"),
    *(b"0", b"5", b"+", b"-", b"_", b"x", b"#", b"@", b"/", b"http://", b"HTTP/1.0", b"HTTP/1.1", b"chunked"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length:\r\n", b"Content-Length", b"Host"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Transfer-Encoding", b"Connection"),
    *(b"Connection: close\r\n", b"Connection: host\r\n", b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n"),
    *(b"Host: other\r\n", b"0\r\n\r\n", b"A: " + b"b" * 40_000 + b"\r\n"),
]  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.integers(0, 300),
        st.sampled_from([0, 0, 1, 2, 10, 100]),
        st.one_of(st.just(b""), st.sampled_from(PIECES), st.sampled_from(PIECES), st.binary(max_size=4)),
    ),
    max_size=4,
)

NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
START = re.compile(rb"(" + NAME + rb") ([!-\"$-~\x80-\xff]+) HTTP/1\.([01])")
FIELD = re.compile(rb"(" + NAME + rb"):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
ANSWER = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d) [ -~]*")

Request = tuple[bytes, bytes, bytes]
"""Method, target and body."""


def fields(lines: list[bytes]) -> dict[bytes, list[bytes]] | None:
    """The header fields by their names in small letters; None where one is malformed."""
    found: dict[bytes, list[bytes]] = {}
    for line in lines:
        if not (field := FIELD.fullmatch(line)):
            return None
        found.setdefault(field[1].lower(), []).append(field[2])
    return found


def read_strictly(data: bytes) -> Iterator[Request]:
    """Yield the requests that are there, as RFC 9112 has them, up to the first that is not quite right."""
    while True:
        data = data.lstrip(b"\r\n")  # section 2.2, and what llhttp overlooks beside
        head, end, data = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        start, headers = START.fullmatch(lines[0]), fields(lines[1:])
        if not end or start is None or headers is None or len(headers.get(b"host", ())) != 1:
            return
        lengths, codings = headers.get(b"content-length", []), headers.get(b"transfer-encoding", [])
        body = b""
        if codings:
            if lengths or start[3] == b"0" or [coding.lower() for coding in codings] != [b"chunked"]:
                return
            while True:
                line, end, rest = data.partition(b"\r\n")
                if not end or not (size := re.fullmatch(rb"([0-9a-fA-F]+)(?:;[\t -~\x80-\xff]*)?", line)):
                    return
                many = int(size[1], 16)
                if many == 0:
                    break
                if rest[many : many + 2] != b"\r\n":
                    return
                body, data = body + rest[:many], rest[many + 2 :]
            data = rest if rest.startswith(b"\r\n") else rest.partition(b"\r\n\r\n")[2]
        elif lengths:
            if len(lengths) > 1 or not re.fullmatch(rb"\d+", lengths[0]) or len(data) < int(lengths[0]):
                return
            body, data = data[: int(lengths[0])], data[int(lengths[0]) :]
        path = re.sub(rb"^https?://[^/?]*", b"", start[2], flags=re.IGNORECASE)
        yield start[1], path if path.startswith(b"/") else b"/" + path, body


def statuses(said: bytes, *, to_head: bool) -> list[int]:
    """The statuses of the answers in `said`, each of which is whole and well formed."""
    found = []
    while said:
        head, end, said = said.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status, headers = ANSWER.fullmatch(lines[0]), fields(lines[1:])
        assert end
        assert status, lines[0]
        assert headers is not None, lines
        found.append(int(status[1]))
        if found[-1] == 100 or (to_head and (not said or said.startswith(b"HTTP/"))):
            continue
        (length,) = headers[b"content-length"]
        assert len(said) >= int(length)
        said = said[int(length) :]
    return found


def is_last(said: bytes) -> bool:
    """Say whether no answer follows: the gateway may still listen, for the rest of a body that it does not want."""
    _, last, body = said.rpartition(b"\r\nConnection: close")
    return bool(last) and body.partition(b"\r\n\r\n")[2].endswith((b"}", b"ok"))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_request_that_is_broken_at_random_is_refused_or_means_one_thing(caplog, new_loop):
    seen: list[Request] = []
    meant: set[Request] = set()
    number = 0

    async def raw(reader, writer):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            request = head
            while b"transfer-encoding: chunked" in head.lower():
                size = await reader.readuntil(b"\r\n")
                request += size + await reader.readexactly(int(size, 16) + 2)
                if size == b"0\r\n":
                    break
            if length := re.search(rb"\r\ncontent-length: (\d+)\r\n", head.lower()):
                request += await reader.readexactly(int(length[1]))
            seen.extend(read_strictly(request) or [(b"not a request", b"", request)])
            body = b"" if head.startswith(b"HEAD ") else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)

    async def try_it(gateway, sent: bytes, cut: int) -> None:
        asked = list(read_strictly(sent))
        meant.update(asked)
        reader, writer = await gateway.connect()
        said = b""
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            writer.write(sent[:cut])
            await asyncio.sleep(0)
            writer.write(sent[cut:])
            while (piece := await reader.read(2**16)) and not is_last(said := said + piece):
                pass
        found = statuses(said, to_head=b"HEAD" in sent)
        assert all(status in {100, 200} or 400 <= status < 500 for status in found), said
        assert found.count(200) <= len(asked)
        left = iter(asked)
        assert all(request in left for request in seen if b"%06d" % number in request[1])
        assert set(seen) <= meant
        seen.clear()
        assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []

    with asyncio.Runner(loop_factory=new_loop) as runner:
        gateway = open_gateway(raw=raw, patience=HASTY, bodyTimeout=0.01)
        opened = runner.run(gateway.__aenter__())

        @settings(max_examples=100)
        @given(whole=st.sampled_from(WHOLE), edits=EDITS, cut=st.integers(0, 300))
        @example(whole=WHOLE[0], edits=[(5, 100, b"")], cut=0)  # was answered in HTTP/0.9
        @example(whole=WHOLE[1], edits=[(12, 9, b"")], cut=0)  # was passed on, though no version is given
        def examples(whole, edits, cut):
            nonlocal number
            number += 1
            sent = whole.replace(b"NUMBER", b"%06d" % number)
            for at, taken, given in edits:
                sent = sent[:at] + given + sent[at + taken :]
            runner.run(asyncio.wait_for(try_it(opened, sent, cut), 30))

        try:
            examples()
        finally:
            runner.run(gateway.__aexit__(None, None, None))
