"""What one caller can ask of the server is bounded: length, headers, and work that nobody waits for."""

import io
import itertools
import socket
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from speech_app import form_request, tiled_speech
from waiting import block_until

EXAMPLES = Path(__file__).parents[2] / "examples"


def wav(rate, samples):
    fmt = struct.pack("<HHIIHH", 1, 1, rate, rate * 2, 2, 16)
    head = b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<I", 16) + fmt
    return head + b"data" + struct.pack("<I", len(samples)) + samples


def silent_flac(hours):
    """Return hours in a few hundred kB."""
    rate = 1000
    target = io.BytesIO()
    with av.open(target, "w", "flac") as container:
        stream = container.add_stream("flac", rate=rate, layout="mono")
        for _ in range(int(hours * 3600 * rate) // 4096):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), "s16", "mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def error_of(response):
    return response.status_code, response.json()["error"]["param"], response.json()["error"]["code"]


def connection_to(whisper):
    host, port = whisper.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def test_hours_in_a_few_kilobytes_are_refused_by_their_length(whisper):
    bomb = silent_flac(4.1)
    assert len(bomb) < 2_000_000
    response = whisper.transcribe(files={"file": bomb})
    assert error_of(response) == (400, "file", "audio_too_long")
    assert "14400 s" in response.json()["error"]["message"]


def test_limit_of_length_is_a_setting(start_whisper, recording):
    whisper = start_whisper(MAX_AUDIO="5.3s")
    assert whisper.transcribe(files={"file": recording}).status_code == 200
    longer = wav(16_000, recording[44:] + bytes(3200))  # 0.1 s
    response = whisper.transcribe(files={"file": longer})
    assert error_of(response) == (400, "file", "audio_too_long")
    assert "5.3 s (set by MAX_AUDIO)" in response.json()["error"]["message"]


@pytest.mark.parametrize("rate", [1, 1_852_516_352])
def test_rate_that_no_sound_has_is_refused_before_it_is_resampled(whisper, rate):
    response = whisper.transcribe(files={"file": wav(rate, bytes(20_000))})
    assert error_of(response) == (400, "file", "invalid_audio")
    assert f"{rate} Hz" in response.json()["error"]["message"]


def test_webm_that_is_cut_off_is_refused(whisper):
    target = io.BytesIO()
    with (
        av.open(str(EXAMPLES / "austen-0890.wav")) as source,
        av.open(target, "w", "matroska") as container,
    ):
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for frame in itertools.chain(source.decode(audio=0), [None]):
            container.mux(stream.encode(frame))
    whole = target.getvalue()
    assert whisper.transcribe(files={"file": whole}).status_code == 200
    response = whisper.transcribe(files={"file": whole[: len(whole) // 2]})
    assert error_of(response) == (400, "file", "truncated_audio")


@pytest.mark.parametrize(
    "samples", [bytes(96_000), struct.pack("<2h", 3, -3) * 80_000], ids=["zeros", "hiss"]
)
def test_silence_is_an_empty_text(whisper, samples):
    response = whisper.transcribe(files={"file": wav(16_000, samples)})
    assert (response.status_code, response.json()["text"]) == (200, "")


def test_silence_after_speech_adds_nothing_and_a_short_answer_stays(whisper, recording):
    followed = wav(16_000, recording[44:] + bytes(16_000 * 2 * 40))
    text = whisper.transcribe(files={"file": followed}).json()["text"]
    assert text.rstrip(".").endswith("disposed")
    word = wav(16_000, recording[44 : 44 + 2 * 16_000])  # the first second
    assert whisper.transcribe(files={"file": word}).json()["text"]


def test_clients_that_leave_free_the_worker_and_the_queue(start_whisper, recording):
    whisper = start_whisper()
    whisper.wait_until_ready()

    def figure(name):
        return next(line for line in whisper.get("/metrics").text.splitlines() if line.startswith(f"{name} "))

    with connection_to(whisper) as computed:
        computed.sendall(form_request(tiled_speech(recording, 600), beam_size="10"))  # minutes of work
        block_until(lambda: figure("speech_jobs_running").endswith(" 1.0"))
        with connection_to(whisper) as queued:
            queued.sendall(form_request(recording))
            block_until(lambda: figure("speech_jobs_waiting").endswith(" 1.0"))
    response = whisper.transcribe(files={"file": recording})  # within its time limit
    assert response.status_code == 200
    assert figure('speech_jobs_total{state="cancelled"}').endswith(" 2.0")
    assert figure("speech_job_wait_seconds_count").endswith(" 2.0")  # the queued one never had a worker
    assert len(whisper.lines("status=499")) == 2
    assert "Traceback" not in whisper.log


@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nx-big: "], ids=["address", "header"])
def test_endless_header_is_431_and_the_connection_ends(whisper, head):
    with connection_to(whisper) as connection:
        connection.sendall(head + b"a" * 70_000)
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'{"error": {' in answer
    assert b"x-request-id: " in answer


def test_header_limit_counts_neither_bodies_nor_the_requests_before(whisper, recording):
    with connection_to(whisper) as connection, connection.makefile("rb") as answers:
        for _ in range(3):
            connection.sendall(b"GET /health/live HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 40_000)
            whisper.get("/health/live")  # by now the first part has been read
            connection.sendall(b"\r\ny: a")
            whisper.get("/health/live")
            connection.sendall(b"\r\n\r\n")
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            while answers.readline() != b"\r\n":
                pass
            assert answers.read(15) == b'{"status":"ok"}'
        request = form_request(recording)
        for first in range(0, len(request), 50_000):
            connection.sendall(request[first : first + 50_000])
            whisper.get("/health/live")
        assert answers.readline() == b"HTTP/1.1 200 OK\r\n"


def test_what_is_no_http_is_refused_in_the_same_shape(whisper):
    with connection_to(whisper) as connection:
        connection.sendall(b"\x16\x03\x01hello\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code": "malformed_request"' in answer
