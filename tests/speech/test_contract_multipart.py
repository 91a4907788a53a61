"""Forms as odd clients write them, byte by byte: read as they were meant, or refused, and never half understood."""

import asyncio
import gzip
import itertools
import socket
import urllib.parse
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from speech_app import FakeEngine, Served, wav
from speech_common.forms import read_form
from speech_common.replies import install_error_handlers

TYPE = {"content-type": "multipart/form-data; boundary=b"}


def part(head, content=b""):
    """Write a part, its Content-Disposition without the first word."""
    return b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n"


def field(name, content):
    return part(b'name="%s"' % name, content)


def file(content, head=b'name="file"; filename="upload"'):
    return part(head, content)


END = b"--b--\r\n"


def answer(body, headers=(), params=None, max_body_bytes=20_000_000):
    """Return a service's answer: what it reads of this form, or its refusal."""
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/")
    async def form(request: Request):
        async with await read_form(request, max_body_bytes) as form:
            content = None if form.upload is None else (await form.upload.read()).decode("latin-1")
            return {"fields": form.fields, "file": content}

    async def once():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/", content=body, headers={**TYPE, **dict(headers)}, params=params)

    return asyncio.run(once())


def read(*args, **kwargs):
    """Return what a service reads of a form, or its refusal."""
    response = answer(*args, **kwargs)
    return response.json() if response.status_code == 200 else refusal(response)


def refusal(response):
    error = response.json()["error"]
    assert error["message"]
    return response.status_code, error["param"], error["code"]


async def in_pieces(body, cuts):
    edges = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    for first, last in itertools.pairwise(edges):
        yield body[first:last]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_file_may_stand_anywhere(place):
    parts = [field(b"model", b"m"), field(b"language", b"en")]
    parts.insert(place, file(b"sound"))
    assert read(b"".join(parts) + END) == {"fields": {"model": ["m"], "language": ["en"]}, "file": "sound"}


@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_form_is_the_same_however_the_network_cuts_it(cuts):
    body = (
        field(b"prompt", "Ça, 你好".encode()) + file(b"so\r\n--bund\r\n--") + field(b"keywords[]", b"a") + END
    )
    expected = {"fields": {"prompt": ["Ça, 你好"], "keywords": ["a"]}, "file": "so\r\n--bund\r\n--"}
    assert read(in_pieces(body, cuts)) == expected


def test_lists_come_with_and_without_brackets_and_keep_their_order():
    body = field(b"keywords[]", b"a") + field(b"keywords", b"b") + field(b"keywords[]", b"c") + END
    assert read(body)["fields"] == {"keywords": ["a", "b", "c"]}


def test_text_before_the_first_boundary_is_refused_and_after_the_last_passed_over():
    assert read(file(b"x") + END + b"epilogue\r\n") == {"fields": {}, "file": "x"}
    assert read(b"preamble\r\n" + file(b"x") + END) == (400, None, "malformed_form")


CUT = "it ends before its closing boundary"
INVALID = "Invalid multipart data"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ((file(b"x") + END).replace(b"\r\n", b"\n"), INVALID),
        (file(b"x"), CUT),
        (file(b"x") + b"--b", CUT),
        (file(b"x") + b"--b-", CUT),
        (b"--b\r\n", CUT),
        (b"", CUT),
        (b"--c\r\n" + file(b"x") + END, INVALID),
        (part(b'filename="upload"', b"x") + END, '"name" must be provided'),
        (b"--b\r\nContent-Type: audio/wav\r\n\r\nx\r\n" + END, '"name" must be provided'),
        (b"--b\r\n" + b"X: y\r\n" * 1000 + b"\r\n" + END, INVALID),
        (b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\n" + END, INVALID),
        (file(b"x") + file(b"y") + END, "Maximum number of files is 1"),
        (b"".join(field(b"keywords[]", b"x") for _ in range(65)) + END, "Maximum number of fields is 64"),
        (field(b"prompt", b"x" * (4 * 1024 * 1024 + 1)) + END, "maximum size of 4096KB"),
        (
            b"".join(field(b"keywords[]", b"x" * 1_000_000) for _ in range(17)) + END,
            "over 16777216 bytes together",
        ),
    ],
    ids=[
        "only-line-feeds",
        "no-last-boundary",
        "last-boundary-cut",
        "last-boundary-cut-later",
        "only-a-boundary",
        "nothing",
        "another-boundary-first",
        "no-name",
        "no-disposition",
        "many-part-headers",
        "long-part-header",
        "two-files",
        "65-fields",
        "huge-field",
        "huge-fields-together",
    ],
)
def test_form_that_is_broken_or_boundless_is_refused_with_the_reason(body, reason):
    response = answer(body)
    assert refusal(response) == (400, None, "malformed_form")
    assert response.json()["error"]["message"].startswith(
        "The request body is not valid multipart/form-data: "
    )
    assert reason in response.json()["error"]["message"]


def test_64_fields_and_a_megabyte_in_one_are_not_too_much():
    assert (
        len(read(b"".join(field(b"keywords[]", b"x") for _ in range(64)) + END)["fields"]["keywords"]) == 64
    )
    assert len(read(field(b"prompt", b"x" * 4 * 1024 * 1024) + END)["fields"]["prompt"][0]) == 4 * 1024 * 1024


def test_upload_that_does_not_fit_on_the_disk_is_507(monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: Path("/dev/full").open("w+b"))  # noqa: SIM115
    with Served(FakeEngine(" Hello.")) as served:
        response = served.post(file=wav(60))  # over 1 MB: on disk
        assert (response.status_code, response.json()["error"]["code"]) == (507, "storage_full")
        assert response.json()["error"]["message"] == "The server has no space left to receive the upload."
        assert response.headers["x-should-retry"] == "false"
        assert served.post().status_code == 200


def test_field_of_no_length_is_empty_and_a_file_of_no_length_is_a_file():
    assert read(field(b"prompt", b"") + file(b"") + END) == {"fields": {"prompt": [""]}, "file": ""}


@pytest.mark.parametrize(
    "head",
    [
        b'name="file"; filename="upload"',
        b'name="file"; filename=""',
        b"name=file; filename=speech.wav",
        b'filename="a.wav"; name="file"',
        b'name="file"; filename="a \\"quoted\\"; name=\\"prompt\\".wav"',
        b"name=\"file\"; filename*=UTF-8''na%C3%AFve%20speech.wav",
        b'name="file"; filename="naive.wav"; filename*=UTF-8\'\'na%C3%AFve.wav',
        'name="file"; filename="naïve 你好.wav"'.encode(),
        b'name="file"; filename="=?UTF-8?Q?na=C3=AFve=2Ewav?="',
        b'name="file"; filename="\xff\xfe.wav"',
        b'name="file"; filename="../../etc/passwd"',
        b'name="file"; filename="C:\\\\speech.wav"',
        b'name="file"; filename="' + b"x" * 3000 + b'"',
        b'name="file"\r\nContent-Type: application/octet-stream',
        b'name="file"\r\ncontent-type: audio/wav',
        b'name="file"; filename="upload"\r\nContent-Transfer-Encoding: binary',
    ],
)
def test_file_is_known_as_one_whatever_its_name(head):
    assert read(file(b"\0\xff\r\nsound", head) + END) == {"fields": {}, "file": "\0ÿ\r\nsound"}


@pytest.mark.parametrize("name", [b"=?UTF-8?Q?file?=", b"FILE", b"file[]", b"prompt"])
def test_file_under_another_name_is_refused(name):
    assert read(part(b'name="%s"; filename="upload"' % name, b"x") + END)[::2] == (400, "invalid_value")


def test_file_without_a_name_or_a_type_is_text():
    assert read(field(b"file", b"hello") + END) == {"fields": {"file": ["hello"]}, "file": None}


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"na\xefve", b"\xed\xa0\x80", b"ends \xe4\xbd", b"\0", b"a\0b"]
)
@pytest.mark.parametrize("name", [b"prompt", b"keywords[]"])
def test_field_that_is_no_text_in_utf8_is_refused_by_name(name, content):
    body = field(b"model", b"m") + field(name, content) + file(b"x") + END
    assert read(body) == (400, name.decode().removesuffix("[]"), "invalid_value")


def test_declared_latin1_is_read_as_such():
    headers = {"content-type": "multipart/form-data; boundary=b; charset=ISO-8859-1"}
    assert read(field(b"prompt", b"na\xefve") + END, headers)["fields"] == {"prompt": ["naïve"]}


@pytest.mark.parametrize("encoding", [b"base64", b"Quoted-Printable", b"gzip"])
def test_encoded_part_is_refused_and_not_taken_for_its_content(encoding):
    response = answer(part(b'name="prompt"\r\nContent-Transfer-Encoding: ' + encoding, b"aGVsbG8=") + END)
    assert refusal(response) == (400, None, "malformed_form")
    assert f"Content-Transfer-Encoding {encoding.decode().lower()!r}" in response.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, identity", "x-unknown"])
def test_encoded_body_is_415(encoding):
    response = answer(gzip.compress(file(b"x") + END), {"content-encoding": encoding})
    assert refusal(response) == (415, None, "unsupported_encoding")
    assert f"Content-Encoding {encoding!r} is not accepted" in response.json()["error"]["message"]


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_body_that_is_encoded_as_itself_is_read(encoding):
    assert read(file(b"x") + END, {"content-encoding": encoding})["file"] == "x"


@pytest.mark.parametrize("name", ["language", "api-version", ""])
def test_parameter_in_the_address_is_refused_and_not_ignored(name):
    response = answer(file(b"x") + END, params={name: "en"})
    assert refusal(response) == (400, name, "unexpected_parameter")
    assert f"parameter {name!r} in the address" in response.json()["error"]["message"]


def test_boundary_may_be_quoted_and_hold_every_character_that_rfc_2046_allows():
    boundary = b"0'()+_,-./:=? z"
    body = (field(b"prompt", b"hi") + END).replace(b"--b", b"--" + boundary)
    headers = {"content-type": f'Multipart/Form-Data; Boundary="{boundary.decode()}"'}
    assert read(body, headers)["fields"] == {"prompt": ["hi"]}


# From here on, the real server over a real connection.


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_recording_first_last_and_in_the_middle_gives_one_text(whisper, recording, place):
    fields = [field(b"model", b"whisper-1"), field(b"response_format", b"text")]
    fields.insert({"first": 0, "middle": 1, "last": 2}[place], file(recording))
    response = whisper.transcribe(content=b"".join(fields) + END, headers=TYPE)
    assert (response.status_code, response.text[-2:]) == (200, ".\n")
    assert "selfish" in response.text


@pytest.mark.parametrize(
    "head",
    [
        b'name="file"; filename="speech.mp3"\r\nContent-Type: video/mp4',
        b"name=\"file\"; filename*=UTF-8''na%C3%AFve.txt\r\nContent-Type: text/plain",
        b'name="file"; filename="upload"\r\nContent-Type: application/octet-stream',
    ],
)
def test_recording_is_told_by_its_content_whatever_its_name_and_type(whisper, recording, head):
    response = whisper.transcribe(content=file(recording, head) + END, headers=TYPE)
    assert "selfish" in response.json()["text"]


def test_field_sent_twice_is_refused(whisper, recording):
    body = field(b"language", b"en") + file(recording) + field(b"language", b"en") + END
    error = whisper.transcribe(content=body, headers=TYPE).json()["error"]
    assert (error["param"], error["code"]) == ("language", "repeated_field")


def connection_to(whisper):
    address = urllib.parse.urlsplit(whisper.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


HEAD = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"
    b"content-type: multipart/form-data; boundary=b\r\n"
)


def chunk(content, extension=b""):
    return b"%x%s\r\n%s\r\n" % (len(content), extension, content)


def test_chunked_form_of_single_bytes_is_read(whisper):
    body = field(b"colour", b"red") + file(b"x") + END
    with connection_to(whisper) as connection:
        connection.sendall(HEAD + b"\r\n" + b"".join(chunk(bytes([byte])) for byte in body) + b"0\r\n\r\n")
        assert connection.makefile("rb").readline() == b"HTTP/1.1 400 Bad Request\r\n"


def test_endless_trailers_are_431_and_the_connection_ends(whisper):
    with connection_to(whisper) as connection:
        connection.sendall(HEAD + b"\r\n" + chunk(b"--b\r\n") + b"0\r\n")
        whisper.get("/health/live")  # by now the chunks have been read
        try:
            for number in range(1000):
                connection.sendall(b"x-%d: " % number + b"y" * 1000 + b"\r\n")
        except OSError:
            pass  # it was closed meanwhile
        answer = read_all(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    assert whisper.get("/health/ready").status_code == 200


def test_endless_chunk_extension_is_431_and_the_connection_ends(whisper):
    with connection_to(whisper) as connection:
        connection.sendall(HEAD + b"\r\n")
        whisper.get("/health/live")  # by now the headers have been read
        connection.sendall(b"5;x=" + b"y" * 66_000)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'{"error": {' in answer


def test_extensions_and_trailers_of_usual_length_are_passed_over(whisper, recording):
    body = file(recording) + END
    pieces = [chunk(body[first : first + 10_000], b";x=y") for first in range(0, len(body), 10_000)]
    trailers = b"0\r\nauthorization: Bearer forged\r\nx-request-id: forged-by-a-trailer\r\n\r\n"
    with connection_to(whisper) as connection, connection.makefile("rb") as answers:
        for _ in range(2):
            connection.sendall(HEAD + b"\r\n" + b"".join(pieces) + trailers)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            head = b"".join(iter(answers.readline, b"\r\n"))
            assert b"forged" not in head
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert b"selfish" in answers.read(length)


def read_all(connection):
    received = b""
    try:
        while data := connection.recv(65_536):
            received += data
    except ConnectionError:
        pass  # the server had more to read when it closed
    return received
