"""`Prefer: respond-async`, and what can be asked of a job afterwards."""

import socket
import threading

import pytest
from speech_app import FakeEngine, Served, form_request, wav
from speech_common.errors import UnreadableAudio
from speech_common.prefer import respond_async
from waiting import LIMIT_S, block_until


@pytest.fixture
def ready():
    """A server whose engine answers at once."""
    with Served(FakeEngine(" Hello there.")) as served:
        yield served


def error_of(response):
    return response.status_code, response.json()["error"]["code"]


def is_busy(served):
    return served.get("/health/busy").json()["busy"]


def ended(served, path):
    block_until(lambda: served.get(path).json()["ended_at"] is not None)
    return served.get(path).json()


def test_job_is_accepted_and_says_where_it_is(served, engine):
    response = served.submit()
    assert (response.status_code, response.headers["preference-applied"]) == (202, "respond-async")
    body = response.json()
    assert response.headers["location"] == f"/v1/audio/jobs/{body['id']}"
    assert (body["object"], body["model"], body["state"]) == ("transcription.job", "whisper-tiny", "running")
    engine.call().end()


def test_job_tells_how_far_it_is(served, engine):
    path = served.submit().headers["location"]
    call = engine.call()
    call.known(duration_s=10.0, language="en")
    call.say(" One.", " Two.")
    call.heard(5.0)
    block_until(lambda: served.get(path).json()["percent"] == 50)
    body = served.get(path).json()
    assert (body["state"], body["text"], body["language"]) == ("running", "One. Two.", "en")
    assert (body["position"], body["duration"], body["error"]) == (None, 10.0, None)
    assert body["time_left"] >= 0
    assert body["ended_at"] is body["expires_at"] is None
    call.end()
    body = ended(served, path)
    assert (body["state"], body["percent"], body["time_left"]) == ("completed", 100, None)
    assert body["created_at"] <= body["started_at"] <= body["ended_at"]
    assert body["expires_at"] - body["ended_at"] in (86_399, 86_400, 86_401)


def test_waiting_job_tells_its_place(served, engine):
    served.submit()
    paths = [served.submit().headers["location"] for _ in range(2)]
    bodies = [served.get(path).json() for path in paths]
    assert [(body["state"], body["position"], body["percent"]) for body in bodies] == [
        ("queued", 1, 0),
        ("queued", 2, 0),
    ]
    for _ in range(3):
        engine.call().end()


def test_result_is_in_the_format_asked_for_with_the_job_or_in_another(ready):
    path = ready.submit({"response_format": "srt"}).headers["location"]
    ended(ready, path)
    srt = ready.get(f"{path}/result")
    assert (srt.status_code, srt.text) == (200, "1\n00:00:00,000 --> 00:00:01,000\nHello there.\n\n")
    verbose = ready.get(f"{path}/result?response_format=verbose_json")
    assert (verbose.json()["language"], verbose.json()["text"]) == ("english", "Hello there.")
    assert ready.get(f"{path}/result?response_format=text").text == "Hello there.\n"


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("response_format=mp3", "invalid_value", "response_format"),
        ("format=srt", "unknown_field", "format"),
    ],
)
def test_result_in_a_format_that_there_is_not_is_refused_by_name(ready, query, code, param):
    path = ready.submit().headers["location"]
    ended(ready, path)
    response = ready.get(f"{path}/result?{query}")
    assert (error_of(response), response.json()["error"]["param"]) == ((400, code), param)


def test_result_of_a_job_that_runs_is_a_conflict_that_is_not_retried(served, engine):
    path = served.submit().headers["location"]
    response = served.get(f"{path}/result")
    assert error_of(response) == (409, "job_unfinished")
    assert response.headers["x-should-retry"] == "false"
    engine.call().end()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (UnreadableAudio("it is a picture"), (400, "invalid_audio")),
        (ValueError("the words of a secret"), (500, "internal_error")),
        (MemoryError(), (500, "internal_error")),
    ],
    ids=["foreseen", "unforeseen", "memory"],
)
def test_job_that_failed_tells_the_error_that_would_have_been_the_answer(served, engine, raised, expected):
    path = served.submit().headers["location"]
    engine.call().fail(raised)
    body = ended(served, path)
    assert (body["state"], body["error"]["code"]) == ("failed", expected[1])
    assert "secret" not in served.get(path).text
    assert error_of(served.get(f"{path}/result")) == expected
    assert error_of(served.get(f"{path}/events")) == expected


def test_cancelling_ends_what_runs_and_what_waits(served, engine):
    running, waiting, after = (served.submit().headers["location"] for _ in range(3))
    call = engine.call()
    assert served.delete(waiting).status_code == 204
    assert served.get(after).json()["position"] == 1
    assert served.delete(running).status_code == 204
    for path in (running, waiting):
        body = served.get(path).json()
        assert (body["state"], body["error"]["code"]) == ("cancelled", "job_cancelled")
        assert error_of(served.get(f"{path}/result")) == (410, "job_cancelled")
    call.look()
    assert call.has_ended.wait(LIMIT_S)
    engine.call().end()
    assert ended(served, after)["state"] == "completed"
    assert call.file.closed


def test_deleting_what_has_ended_forgets_it(ready):
    path = ready.submit().headers["location"]
    ended(ready, path)
    assert ready.delete(path).status_code == 204
    for response in (
        ready.get(path),
        ready.get(f"{path}/result"),
        ready.get(f"{path}/events"),
        ready.delete(path),
    ):
        assert error_of(response) == (404, "job_not_found")
    assert list(ready.jobs._kept) == []


def test_job_that_expired_is_found_no_more():
    with Served(FakeEngine(" Hello."), JOB_KEEP="1ms") as served:
        path = served.submit().headers["location"]
        block_until(lambda: served.get(path).status_code == 404)


def test_job_is_somebodys_own():
    alice, bob = ({"authorization": f"Bearer {key}"} for key in ("alice", "bob"))
    with Served(FakeEngine(" Hello."), API_KEYS="alice,bob") as served:
        path = served.submit(headers=alice).headers["location"]
        for suffix in ("", "/result", "/events"):
            assert error_of(served.get(path + suffix, headers=bob)) == (404, "job_not_found")
            assert served.get(path + suffix).status_code == 401
        assert error_of(served.delete(path, headers=bob)) == (404, "job_not_found")
        assert served.get(path, headers=alice).status_code == 200
        assert served.get("/health/busy").status_code == 200  # the gateway has no key


def test_errors_that_can_be_told_at_once_are(served):
    assert error_of(served.submit({"model": "no-such"})) == (404, "model_not_found")
    assert error_of(served.submit(file=b"no audio at all" * 100)) == (400, "invalid_audio")
    assert error_of(served.submit({"response_format": "mp3"})) == (400, "invalid_value")
    assert (list(served.jobs._kept), is_busy(served)) == ([], False)


def test_within_its_wait_a_result_is_the_answer(ready):
    response = ready.submit({"response_format": "text"}, "respond-async, wait=30")
    assert (response.status_code, response.text) == (200, "Hello there.\n")
    assert response.headers["preference-applied"] == "respond-async, wait=30"
    assert list(ready.jobs._kept) == []


def test_within_its_wait_an_error_is_the_answer(served, engine):
    asked = served.beside(served.submit, prefer="respond-async, wait=30")
    engine.call().fail(UnreadableAudio("it is a picture"))
    assert error_of(asked.outcome()) == (400, "invalid_audio")
    assert list(served.jobs._kept) == []


def test_after_its_wait_there_is_a_job(served, engine):
    response = served.submit(prefer="respond-async, wait=1")
    assert (response.status_code, response.headers["preference-applied"]) == (202, "respond-async, wait=1")
    engine.call().end()
    assert ended(served, response.headers["location"])["state"] == "completed"


def test_who_leaves_within_the_wait_takes_the_job_along(served, engine):
    with socket.create_connection(served.address) as connection:
        connection.sendall(form_request(wav(), "prefer: respond-async, wait=600"))
        call = engine.call()
    block_until(lambda: not list(served.jobs._kept))
    call.look()
    block_until(lambda: not is_busy(served))


def test_job_goes_on_when_its_maker_has_left(served, engine):
    with socket.create_connection(served.address) as connection:
        connection.sendall(form_request(wav(), "prefer: respond-async"))
        call = engine.call()
    call.say(" Still here.")
    call.end()
    assert call.has_ended.wait(LIMIT_S)
    (job,) = served.jobs._kept
    assert served.get(f"/v1/audio/jobs/{job.id}/result").json()["text"] == "Still here."


def test_stream_field_beside_the_preference_makes_a_job_whose_events_can_be_followed(served, engine):
    path = served.submit({"stream": "true"}).headers["location"]
    call = engine.call()
    call.say(" Hello.")
    call.end()
    assert "transcript.text.done" in served.get(f"{path}/events").text


def test_results_keep_the_service_busy_until_they_are_fetched(served, engine):
    assert not is_busy(served)
    paths = [served.submit().headers["location"] for _ in range(4)]
    assert is_busy(served)
    for path in paths[:3]:
        call = engine.call()
        call.say(" Hello.")
        call.end()
        ended(served, path)
    engine.call().fail(UnreadableAudio("it is a picture"))
    block_until(lambda: served.jobs.running == 0)
    assert is_busy(served)
    served.get(f"{paths[0]}/result")
    served.get(f"{paths[1]}/events")
    served.delete(paths[2])
    assert is_busy(served)
    served.get(paths[3])  # all there is of a job that failed
    assert not is_busy(served)


def test_result_is_fetched_only_by_who_stays_until_its_end(served, engine):
    path = served.submit().headers["location"]
    call = engine.call()
    call.say(*[" word" * 20_000] * 100)  # 10 MB: more than lies in the kernel's buffers
    call.end()
    ended(served, path)
    with socket.create_connection(served.address) as connection:
        connection.sendall(f"GET {path}/result HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
    block_until(lambda: len(served.server.server_state.connections) <= 1)
    assert is_busy(served)
    assert len(served.get(f"{path}/result").content) > 10_000_000
    assert not is_busy(served)


def test_what_is_somebodys_own_is_stored_by_nobody(ready):
    accepted = ready.submit()
    path = accepted.headers["location"]
    ended(ready, path)
    answers = [
        accepted,
        ready.get(path),
        ready.get(f"{path}/result"),
        ready.post(),
        ready.post(path="/transcribe"),
        ready.post(path="/v1/audio/detect-language"),
    ]
    assert [answer.headers["cache-control"] for answer in answers] == ["no-store"] * len(answers)


def test_plain_request_keeps_the_service_busy_only_while_it_runs(served, engine):
    asked = served.beside(served.post)
    call = engine.call()
    assert is_busy(served)
    call.end()
    assert asked.outcome().status_code == 200
    block_until(lambda: not is_busy(served))


def test_result_nobody_fetches_keeps_the_service_busy_only_for_its_time():
    with Served(FakeEngine(" Hello."), JOB_HOLD="1ms") as served:
        path = served.submit().headers["location"]
        block_until(lambda: not is_busy(served))
        assert served.get(f"{path}/result").status_code == 200


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_busy_is_answered_as_the_gateway_asks(ready, version):
    with socket.create_connection(ready.address, timeout=LIMIT_S) as connection:
        connection.sendall(
            b"GET /health/busy " + version + b"\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'{"busy":false}')
    assert len(answer) < 4096


def test_recording_is_closed_when_its_job_has_ended(served, engine):
    path = served.submit(file=wav(60)).headers["location"]  # over 1 MB: on disk
    call = engine.call()
    assert not call.file.closed
    call.end()
    ended(served, path)
    assert call.file.closed


def test_recordings_have_no_name_on_disk(served, engine, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    served.submit(file=wav(60))
    call = engine.call()
    assert (call.file._rolled, list(tmp_path.iterdir())) == (True, [])
    call.end()


def test_ids_cannot_be_guessed(served, engine):
    ids = {served.submit().json()["id"] for _ in range(3)}
    assert {len(job_id) for job_id in ids} == {22}  # 128 bits
    assert error_of(served.get("/v1/audio/jobs/" + "a" * 22)) == (404, "job_not_found")
    for _ in ids:
        engine.call().end()


def test_job_that_was_made_and_ended_is_in_the_log_without_its_content(served, engine, caplog):
    caplog.set_level("INFO")
    job_id = served.submit().json()["id"]
    call = engine.call()
    call.say(" Nobody may read this.")
    call.end()
    block_until(lambda: f"event=job_ended job={job_id[:6]} state=completed" in caplog.text)
    assert f"job={job_id[:6]} " in next(line for line in caplog.text.splitlines() if "status=202" in line)
    assert "Nobody" not in caplog.text


def test_log_does_not_tell_where_a_transcript_can_be_read(served, engine, caplog):
    """Without API keys, who knows the id reads the transcript."""
    caplog.set_level("DEBUG")
    job_id = served.submit().json()["id"]
    path = f"/v1/audio/jobs/{job_id}"
    for asked in (path, f"{path}/", f"{path}/result", f"{path}/no-such", f"//v1/audio/jobs/{job_id}"):
        served.get(asked)
    engine.call().fail(ValueError("nobody foresaw it"))
    ended(served, path)
    served.delete(path)
    block_until(lambda: "method=DELETE" in caplog.text)
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("speech."))
    assert f"path=/v1/audio/jobs/{job_id[:6]}.../result status=409" in ours
    assert f"event=job_crashed job={job_id[:6]}\n" in ours
    assert job_id[:7] not in ours


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["respond-async"], 0),
        (["Respond-Async , WAIT=10"], 10),
        (["wait=5", "respond-async"], 5),
        (["return=minimal; foo=1, respond-async"], 0),
        (['foo="a, b", respond-async;x="y,z", wait="7"'], 7),
        (["wait=4, wait=9, respond-async"], 4),
        (["respond-async, wait=99999"], 600),
        (["respond-async, wait=-1"], 0),
        (["respond-async, wait=soon"], 0),
        (["respond-async, wait=99999999999999999999"], 0),
        (["wait=10"], None),
        (['foo="respond-async"'], None),
        (['foo="a, respond-async'], None),
        (["respond-async-later"], None),
        ([""], None),
        ([], None),
    ],
)
def test_preference_is_read_as_the_rfc_writes_it(headers, expected):
    preference = respond_async(headers)
    assert (None if preference is None else preference.wait_s) == expected


@pytest.mark.parametrize("piece", ['a="', '"', ",", '\\"', " ", ";=", '",'])
def test_preference_of_any_length_is_read_in_one_go(piece):
    reading = threading.Thread(target=respond_async, args=([piece * 1_000_000],), daemon=True)
    reading.start()
    reading.join(LIMIT_S)
    assert not reading.is_alive()
