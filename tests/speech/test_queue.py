"""The queue over HTTP: its limit, its order, its end; and that 500 requests leave nothing behind."""

import asyncio
import collections
import contextlib
import gc
import select
import socket
import threading
from pathlib import Path

import httpx
import openai
import pytest
from speech_app import PATH, Served, form_request, tiled_speech, wav
from speech_common.job import Job
from waiting import LIMIT_S, block_until


@pytest.fixture
def served(engine):
    with Served(engine, WHISPER_QUEUE="2") as served:
        yield served


def error_of(response):
    return response.status_code, response.json()["error"]["code"]


def full(served, engine):
    """Fill the queue, and return the answers to come."""
    asked = [served.beside(served.post)]
    engine_call = engine.call()
    for waiting in (1, 2):
        asked.append(served.beside(served.post))
        block_until(lambda waiting=waiting: served.jobs.waiting == waiting)
    return engine_call, asked


def finish(engine, call, asked):
    call.end()
    for _ in asked[1:]:
        engine.call().end()
    assert [each.outcome().status_code for each in asked] == [200] * len(asked)


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}], ids=["plain", "stream"])
@pytest.mark.parametrize("headers", [{}, {"prefer": "respond-async"}], ids=["now", "later"])
def test_full_queue_is_503_with_a_time_to_come_again(served, engine, fields, headers):
    call, asked = full(served, engine)
    response = served.post(fields, headers=headers)
    assert error_of(response) == (503, "queue_full")
    assert 1 <= int(response.headers["retry-after"]) <= 120
    assert "x-should-retry" not in response.headers
    assert "WHISPER_QUEUE" in response.json()["error"]["message"]
    finish(engine, call, asked)


def test_full_queue_is_told_before_the_body_is_received(served, engine):
    call, asked = full(served, engine)
    with socket.create_connection(served.address, timeout=LIMIT_S) as connection:
        connection.sendall(form_request(wav())[:300])
        assert connection.recv(12) == b"HTTP/1.1 503"
    finish(engine, call, asked)


def test_more_uploads_than_places_are_refused_before_their_bodies_are_read(served, engine):
    """One worker, two places: the others would else be received, all of them, and then refused."""
    request = form_request(wav())
    with contextlib.ExitStack() as stack:
        uploads = [
            stack.enter_context(socket.create_connection(served.address, timeout=LIMIT_S)) for _ in range(6)
        ]
        for connection in uploads:
            connection.sendall(request[:300])
        readable = {}
        block_until(
            lambda: readable.update(dict.fromkeys(select.select(uploads, (), (), 0)[0])) or len(readable) == 3
        )
        for connection in readable:
            answer = connection.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: " in answer
        admitted = [connection for connection in uploads if connection not in readable]
        for connection in admitted:
            connection.sendall(request[300:])
        for _ in admitted:
            engine.call().end()
        assert [connection.recv(12) for connection in admitted] == [b"HTTP/1.1 200"] * 3


def test_detection_is_no_transcription(served, engine):
    engine.text = " Hello."
    assert served.post(path="/v1/audio/detect-language").status_code == 200
    assert served.jobs.speed is None
    assert "\nspeech_audio_seconds_total 0.0\n" in served.get("/metrics").text
    assert served.post().status_code == 200
    block_until(lambda: served.jobs.speed)
    assert "\nspeech_audio_seconds_total 1.0\n" in served.get("/metrics").text


def test_directories_that_do_not_answer_hold_up_only_who_asks_for_a_model(served, engine, monkeypatch):
    answers = threading.Event()
    resolve = served.registry.resolve
    monkeypatch.setattr(served.registry, "resolve", lambda name: answers.wait(2 * LIMIT_S) and resolve(name))
    asked = served.beside(served.post)
    block_until(lambda: served.jobs._admissions)
    for path in ("/health", "/health/live", "/health/ready", "/health/busy", "/metrics"):
        assert served.get(path).status_code == 200
    answers.set()
    engine.call().end()
    assert asked.outcome().status_code == 200


def test_sdk_comes_again_by_itself(served, engine):
    served.jobs._audio_s, served.jobs._work_s = 1e6, 1.0  # so that it is told to come in a second
    call, asked = full(served, engine)
    refusals = []
    http = httpx.Client(event_hooks={"response": [lambda response: refusals.append(response.status_code)]})
    with openai.OpenAI(base_url=served.url + "/v1", api_key="none", http_client=http) as client:
        again = served.beside(lambda: client.audio.transcriptions.create(model="whisper-1", file=wav()))
        block_until(lambda: refusals)
        call.end()
        for _ in range(3):
            engine.call().end()
        assert again.outcome().text == ""
    assert refusals == [503, 200]
    for each in asked:
        each.outcome()


def test_requests_are_served_in_the_order_they_came(engine):
    with Served(engine, WHISPER_QUEUE="9") as served:
        asked = []
        for number in range(4):
            asked.append(served.beside(served.post, {"prompt": f"p{number}"}))
            block_until(lambda number=number: served.jobs.waiting + served.jobs.running == number + 1)
        prompts = []
        for _ in asked:
            call = engine.call()
            prompts.append(call.options.prompt)
            call.end()
        assert prompts == ["p0", "p1", "p2", "p3"]
        for each in asked:
            each.outcome()


def test_client_that_leaves_frees_the_worker_at_its_next_check(served, engine):
    with socket.create_connection(served.address) as connection:
        connection.sendall(form_request(wav()))
        call = engine.call()
    block_until(lambda: all(job.has_ended for job in served.jobs._working))
    assert not call.file.closed
    call.look()
    block_until(lambda: served.jobs.running == 0)
    assert call.file.closed


def test_client_that_leaves_the_queue_leaves_it_at_once(served, engine, caplog):
    caplog.set_level("INFO")
    first = served.beside(served.post)
    call = engine.call()
    with socket.create_connection(served.address) as connection:
        connection.sendall(form_request(wav()))
        block_until(lambda: served.jobs.waiting == 1)
    block_until(lambda: served.jobs.waiting == 0)
    call.end()
    first.outcome()
    assert engine.has_no_more_calls()
    block_until(lambda: "status=499" in caplog.text)
    assert "Traceback" not in caplog.text


def test_client_that_leaves_in_the_middle_of_its_upload_leaves_no_job(served, engine):
    with socket.create_connection(served.address) as connection:
        connection.sendall(form_request(wav())[:500])
        block_until(lambda: served.jobs._admissions)
        assert served.get("/health/busy").json() == {"busy": True}
    block_until(lambda: not served.jobs._admissions)
    assert (served.jobs.running, served.jobs.waiting) == (0, 0)


def test_50_clients_at_once_are_each_answered_or_refused(engine):
    engine.text = " Hello."

    async def ask(url):
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(timeout=LIMIT_S, limits=limits) as client:
            return await asyncio.gather(*(client.post(url + PATH, files={"file": wav()}) for _ in range(50)))

    with Served(engine, WHISPER_QUEUE="3") as served:
        answers = collections.Counter(
            (response.status_code, response.json().get("text") or error_of(response)[1])
            for response in asyncio.run(ask(served.url))
        )
        assert set(answers) <= {(200, "Hello."), (503, "queue_full")}
        assert sum(answers.values()) == 50
        assert answers[200, "Hello."] >= 1
        block_until(lambda: not served.jobs.running)


def test_500_requests_leave_nothing_behind(engine):
    """Jobs, tasks, threads, files: what is there after 500 is what was there after 20."""
    engine.text = " Hello."

    def ask(served, count):
        for number in range(count):
            match number % 5:
                case 0:
                    served.post()
                case 1:
                    served.post({"stream": "true"})
                case 2:
                    path = served.submit().headers["location"]
                    served.get(f"{path}/events")
                    served.delete(path)
                case 3:
                    with socket.create_connection(served.address) as connection:
                        connection.sendall(form_request(wav(), stream="true"))
                case 4:
                    served.post(file=b"no audio" * 20)

    def rest(served):
        block_until(
            lambda: not (served.jobs.running or served.jobs.waiting or served.server.server_state.tasks)
        )
        block_until(lambda: len(served.server.server_state.connections) <= 1)
        block_until(lambda: not [thread for thread in threading.enumerate() if thread.name == "job"])
        gc.collect()
        return (
            sum(isinstance(one, Job) for one in gc.get_objects()),
            len(asyncio.all_tasks(served.loop)),
            threading.active_count(),
            len(list(Path("/proc/self/fd").iterdir())),
        )

    with Served(engine) as served:
        ask(served, 50)  # the pool of asyncio's own threads has grown by then
        before = rest(served)
        ask(served, 500)
        after = rest(served)
    assert after <= before
    assert list(served.jobs._kept) == []


def test_shutdown_lets_what_runs_end(engine):
    with Served(engine, SHUTDOWN_TIMEOUT=f"{LIMIT_S:g}") as served:
        asked = [served.beside(served.post), served.beside(served.post, {"stream": "true"})]
        first = engine.call()
        block_until(lambda: served.jobs.waiting == 1)
        served.stop()
        block_until(lambda: served.jobs.is_closing)
        for refused in (served.post(), served.submit(), served.post({"stream": "true"})):
            assert error_of(refused) == (503, "shutting_down")
            assert refused.headers["x-should-retry"] == "false"
        assert served.get("/health/ready").json() == {"status": "stopping"}
        for next_call in (lambda: first, engine.call):
            call = next_call()
            call.say(" Done.")
            call.end()
        assert asked[0].outcome().json()["text"] == "Done."
        assert asked[1].outcome().text.endswith("data: [DONE]\n\n")


def test_shutdown_tells_whoever_still_waits(engine):
    with Served(engine) as served:
        plain = served.beside(served.post)
        call = engine.call()
        queued = served.beside(served.post, {"stream": "true"})
        block_until(lambda: served.jobs.waiting == 1)
        served.stop()
        for asked in (plain, queued):
            response = asked.outcome()
            assert error_of(response) == (503, "shutting_down")
            assert response.headers["x-should-retry"] == "false"
        call.look()
        assert call.has_ended.wait(LIMIT_S)


def test_shutdown_is_an_event_where_the_stream_has_begun(engine):
    with Served(engine) as served:
        asked = served.beside(served.post, {"stream": "true"})
        call = engine.call()
        call.say(" One")
        block_until(lambda: any(job.segments for job in served.jobs._working))
        block_until(lambda: served.server.server_state.tasks)
        served.stop()
        assert '"code": "shutting_down"' in asked.outcome().text
        call.look()


def test_shutdown_tells_who_is_uploading(engine):
    with Served(engine) as served, socket.create_connection(served.address, timeout=LIMIT_S) as connection:
        connection.sendall(form_request(wav())[:500])
        block_until(lambda: served.jobs._admissions)
        served.stop()
        answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"shutting_down"' in answer


def test_terminated_process_answers_who_waits_and_ends_well(start_whisper, recording):
    """The whole program, and the signal: minutes of speech are streamed, one more recording waits."""
    whisper = start_whisper(SHUTDOWN_TIMEOUT="0", LOG_LEVEL="DEBUG")
    whisper.wait_until_ready()
    host, port = whisper.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=60)) for _ in range(2)
        ]
        running, waiting = connections
        running.sendall(form_request(tiled_speech(recording, 200), stream="true", beam_size="10"))
        block_until(lambda: "speech_jobs_running 1.0" in whisper.get("/metrics").text)
        waiting.sendall(form_request(recording))
        block_until(lambda: "speech_jobs_waiting 1.0" in whisper.get("/metrics").text)
        whisper.process.terminate()
        answers = [stack.enter_context(connection.makefile("rb")).read() for connection in connections]
    assert whisper.wait_for_exit() == 0
    for answer in answers:
        assert b"shutting_down" in answer
    assert answers[0].startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 200 "))
    assert answers[1].startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in whisper.log
