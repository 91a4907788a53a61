"""`stream=true`: the text leaves as it is decoded, and whoever stops listening frees the worker."""

import asyncio
import json
import socket

import openai
import pytest
from speech_app import form_request, wav
from speech_common.errors import UnreadableAudio
from speech_common.events import Unsaid, events, until_begun
from speech_common.jobs import Jobs
from speech_common.transcript import Segment, Transcript
from waiting import LIMIT_S, block_until


@pytest.fixture
def client(served):
    with openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0) as client:
        yield client


class Listener:
    """A connection on which a stream comes."""

    def __init__(self, served, *headers, path=None, **fields) -> None:
        self.connection = socket.create_connection(served.address, timeout=LIMIT_S)
        if path is None:
            self.connection.sendall(form_request(wav(), *headers, stream="true", **fields))
        else:
            self.connection.sendall(
                f"GET {path} HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\n\r\n".encode()
            )
        self.lines = self.connection.makefile("rb")
        self.head = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()

    def leave(self):
        self.lines.close()
        self.connection.close()

    def next(self):
        """Return the next event or comment."""
        if self.head is None:
            self.head = [self.lines.readline().decode().strip()]
            while line := self.lines.readline().decode().strip():
                self.head.append(line.lower())
        while (line := self.lines.readline().decode().rstrip("\r\n")) == "" or _is_chunk_size(line):
            assert not self.has_ended(line)
        return json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else line

    def has_ended(self, line):
        return line == "0" or (line == "" and not self.lines.peek(1))

    def rest(self):
        """Return what is left on the connection, once it is closed or the stream has ended."""
        return self.lines.read()


def _is_chunk_size(line):
    return not line.startswith((":", "data:")) and int(line, 16) >= 0


def delta(text):
    return {"type": "transcript.text.delta", "delta": text}


def test_text_leaves_as_it_is_said(served, engine):
    with Listener(served) as listener:
        call = engine.call()
        call.say(" One")
        assert listener.next() == delta("One")
        assert listener.head[0] == "HTTP/1.1 200 OK"
        assert "content-type: text/event-stream; charset=utf-8" in listener.head
        assert "cache-control: no-cache" in listener.head
        assert "x-accel-buffering: no" in listener.head  # nginx would keep it back
        assert not any(line.startswith("content-length") for line in listener.head)
        call.say(" two.")
        assert listener.next() == delta(" two.")
        call.end()
        assert listener.next() == {
            "type": "transcript.text.done",
            "text": "One two.",
            "usage": {"type": "duration", "seconds": 2.0},
        }
        assert listener.next() == "data: [DONE]"


@pytest.mark.parametrize(
    "texts",
    [
        [" One", " two. "],
        ["One ", " two"],
        [" ", "\n", " One", " ", "", " two", " \n"],
        ["  \N{NO-BREAK SPACE}One\N{LINE SEPARATOR}", "two \N{IDEOGRAPHIC SPACE}"],
        ["\N{GRINNING FACE}", " \x00\r\n"],
        ["", " "],
        [],
    ],
)
def test_deltas_joined_are_the_text_of_done_and_of_the_answer_that_is_not_streamed(served, engine, texts):
    def make(asked):
        call = engine.call()
        call.say(*texts)
        call.end()
        return asked.outcome()

    plain = make(served.beside(served.post)).json()
    streamed = make(served.beside(served.post, {"stream": "true"})).text
    told = [json.loads(line[6:]) for line in streamed.split("\n\n") if line.startswith("data: {")]
    assert "".join(event["delta"] for event in told[:-1]) == told[-1]["text"] == plain["text"]
    assert told[-1]["usage"] == plain["usage"]
    assert all(event["delta"] for event in told[:-1])
    assert streamed.isascii()
    assert streamed.endswith("\n\ndata: [DONE]\n\n")


def test_white_space_goes_out_with_the_word_after_it():
    unsaid = Unsaid()
    assert [unsaid.next(text) for text in (" ", " a ", " ", "b", " ")] == ["", "a", "", "  b", ""]


def test_sdk_reads_the_stream(served, engine, client):
    asked = served.beside(
        lambda: list(client.audio.transcriptions.create(model="whisper-1", file=wav(), stream=True))
    )
    call = engine.call()
    call.say(" One", " two.")
    call.end()
    *deltas, done = asked.outcome()
    assert [event.delta for event in deltas] == ["One", " two."]
    assert (done.type, done.text, done.usage.seconds) == ("transcript.text.done", "One two.", 2.0)


def test_asynchronous_sdk_reads_the_stream(served, engine):
    async def read():
        async with openai.AsyncOpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0) as client:
            stream = await client.audio.transcriptions.create(
                model="whisper-1", file=wav(), stream=True, response_format="text"
            )
            return [event.type async for event in stream]

    asked = served.beside(asyncio.run, read())
    call = engine.call()
    call.say(" One")
    call.end()
    assert asked.outcome() == ["transcript.text.delta", "transcript.text.done"]


@pytest.mark.parametrize(
    ("fields", "file", "status"),
    [
        ({"model": "no-such"}, None, openai.NotFoundError),
        ({}, b"no audio" * 100, openai.BadRequestError),
        ({"response_format": "srt"}, None, openai.BadRequestError),
        ({"response_format": "verbose_json"}, None, openai.BadRequestError),
    ],
)
def test_what_is_wrong_before_the_first_word_is_an_ordinary_error(client, fields, file, status):
    with pytest.raises(status):
        client.audio.transcriptions.create(
            **{"model": "whisper-1", "file": file or wav(), "stream": True, **fields}
        )


def test_failure_before_the_first_word_is_an_ordinary_error_too(served, engine, client):
    asked = served.beside(
        lambda: client.audio.transcriptions.create(model="whisper-1", file=wav(), stream=True)
    )
    call = engine.call()
    call.known(duration_s=3.0)
    call.fail(UnreadableAudio("it is a picture"))
    with pytest.raises(openai.BadRequestError, match="it is a picture"):
        asked.outcome()


@pytest.mark.parametrize(
    ("raised", "code"),
    [(UnreadableAudio("it is torn"), "invalid_audio"), (ValueError("x"), "internal_error")],
)
def test_failure_after_the_first_word_is_an_error_in_the_stream(served, engine, client, raised, code):
    heard = []

    def read():
        stream = client.audio.transcriptions.create(model="whisper-1", file=wav(), stream=True)
        heard.extend(event.delta for event in stream)

    asked = served.beside(read)
    call = engine.call()
    call.say(" One")
    call.fail(raised)
    with pytest.raises(openai.APIError) as failed:
        asked.outcome()
    assert (heard, failed.value.code) == (["One"], code)


def test_listener_that_leaves_frees_the_worker_at_its_next_check(served, engine):
    with Listener(served) as listener:
        call = engine.call()
        call.say(" One")
        listener.next()
    after = served.beside(served.post)
    block_until(lambda: served.jobs.waiting == 1 and all(job.has_ended for job in served.jobs._working))
    call.look()
    engine.call().end()
    assert after.outcome().status_code == 200
    assert call.file.closed


def test_listener_that_leaves_before_the_first_word_frees_the_worker_too(served, engine):
    with Listener(served):
        call = engine.call()
    block_until(lambda: all(job.has_ended for job in served.jobs._working))
    call.look()
    block_until(lambda: served.jobs.running == 0)


def test_listener_that_leaves_the_queue_leaves_it_at_once(served, engine):
    with Listener(served):
        call = engine.call()
        with Listener(served):
            block_until(lambda: served.jobs.waiting == 1)
        block_until(lambda: served.jobs.waiting == 0)
        call.end()
        assert engine.has_no_more_calls()


def test_listener_that_does_not_read_holds_nobody_up(served, engine):
    with Listener(served):
        call = engine.call()
        call.say(*[" word" * 20_000] * 100)  # 10 MB: more than lies in the kernel's buffers
        call.end()
        assert call.has_ended.wait(LIMIT_S)
        after = served.beside(served.post)
        engine.call().end()
        assert after.outcome().status_code == 200


def test_events_of_a_job_come_from_the_beginning_for_everyone(served, engine):
    path = served.submit().headers["location"]
    call = engine.call()
    call.say(" One")
    block_until(lambda: served.get(path).json()["text"] == "One")
    with Listener(served, path=f"{path}/events") as early, Listener(served, path=f"{path}/events") as leaving:
        assert early.next() == leaving.next() == delta("One")
        leaving.leave()
        call.say(" two")
        assert early.next() == delta(" two")
        call.end()
        assert early.next()["text"] == "One two"
    assert "One" in served.get(f"{path}/events").text
    assert served.get(path).json()["state"] == "completed"


def test_events_of_a_job_that_is_cancelled_end_with_the_error(served, engine):
    path = served.submit().headers["location"]
    call = engine.call()
    call.say(" One")
    with Listener(served, path=f"{path}/events") as listener:
        listener.next()
        served.delete(path)
        assert listener.next()["error"]["code"] == "job_cancelled"
        assert listener.rest().split() == [b"0"]
    call.look()


def test_events_of_a_job_that_is_forgotten_while_it_is_followed_go_on_to_the_end(served, engine):
    path = served.submit().headers["location"]
    call = engine.call()
    call.say(" One")
    with Listener(served, path=f"{path}/events") as listener:
        listener.next()
        call.end()
        block_until(lambda: served.get(path).json()["state"] == "completed")
        served.delete(path)
        assert served.get(path).status_code == 404
        assert listener.next()["text"] == "One"


def test_nothing_is_logged_of_what_is_streamed(served, engine, caplog):
    caplog.set_level("DEBUG")
    with Listener(served) as listener:
        call = engine.call()
        call.say(" Nobody may read this.")
        call.end()
        listener.next()
        listener.next()
    block_until(lambda: "event=request" in caplog.text)
    line = next(line for line in caplog.text.splitlines() if "event=request" in line)
    assert "status=200" in line
    assert "audio_s=1.00" in line
    assert "Nobody" not in caplog.text


def job_of(work):
    return Jobs(1, 1).submit(work)


def test_silence_is_filled_with_pings():
    async def main():
        told = asyncio.Event()
        job = job_of(lambda progress: block_until(told.is_set) or spoken(" One"))
        stream = events(job, ping_every_s=0.001)
        assert [await anext(stream) for _ in range(3)] == [b": ping\n\n"] * 3
        told.set()
        rest = [event async for event in stream if event != b": ping\n\n"]
        assert json.loads(rest[0].removeprefix(b"data: ")) == delta("One")
        assert rest[-1] == b"data: [DONE]\n\n"

    asyncio.run(main())


def test_waiting_in_the_queue_is_filled_with_pings_too(served, engine, monkeypatch):
    monkeypatch.setattr("speech_common.intake.until_begun", lambda job: until_begun(job, 0.001))
    monkeypatch.setattr("speech_common.intake.told", lambda job: events(job, 0.001))
    with Listener(served) as first:
        call = engine.call()
        with Listener(served) as listener:
            assert [listener.next() for _ in range(3)] == [": ping"] * 3
            assert served.jobs.waiting == 1
            call.end()
            engine.call().end()
            event = listener.next()
            while event == ": ping":
                event = listener.next()
            assert event["type"] == "transcript.text.done"
        first.leave()


def test_stream_that_pings_tells_its_failure_as_an_event(served, engine, monkeypatch):
    monkeypatch.setattr("speech_common.intake.until_begun", lambda job: until_begun(job, 0.001))
    monkeypatch.setattr("speech_common.intake.told", lambda job: events(job, 0.001))
    with Listener(served) as listener:
        assert listener.next() == ": ping"
        engine.call().fail(UnreadableAudio("it is a picture"))
        event = listener.next()
        while event == ": ping":
            event = listener.next()
        assert event["error"]["code"] == "invalid_audio"


def spoken(text):
    return Transcript("transcribe", "en", 1.0, (Segment(0, 0.0, 1.0, text),))


def test_plain_json_is_never_the_answer_to_a_stream(served, engine):
    """The openai SDK would yield no event, silently."""
    asked = served.beside(served.post, {"stream": "true"})
    engine.call().end()
    response = asked.outcome()
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.startswith("data: ")
