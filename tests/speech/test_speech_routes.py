"""The routes around transcription: models, health, meetings, languages, metrics, docs, request ids and the log."""

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from speech_common.access import AccessLog
from speech_common.replies import install_error_handlers
from whisper_server import fields


def test_models_are_listed_with_the_name_that_openai_programs_ask_for(whisper):
    body = whisper.get("/v1/models").json()
    assert body["object"] == "list"
    assert [(model["id"], model["object"]) for model in body["data"]] == [
        ("whisper-tiny", "model"),
        ("whisper-1", "model"),
    ]


@pytest.mark.parametrize("name", ["whisper-tiny", "whisper-1"])
def test_one_model_is_described(whisper, name):
    assert whisper.get(f"/v1/models/{name}").json()["id"] == name


@pytest.mark.parametrize("name", ["gpt-9", "owner/name"])
def test_unknown_model_is_404(whisper, name):
    response = whisper.get(f"/v1/models/{name}")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_health_is_live_and_ready(whisper):
    assert whisper.get("/health/live").json() == {"status": "ok"}
    assert whisper.get("/health/ready").json() == {"status": "ready"}


def test_docs_need_no_internet(whisper):
    page = whisper.get("/docs").text
    assert re.findall(r"https?://[^\"' ]+", page) == []
    sources = re.findall(r"(?:src|href)=\"(/[^\"]+)\"", page)
    assert sources == ["/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"]
    for source in sources:
        assert whisper.get(source).status_code == 200
    assert whisper.get("/docs/../pyproject.toml").status_code == 404
    assert whisper.get("/docs/index.html").status_code == 404


def test_description_names_every_path_and_is_of_a_version_that_the_page_shows(whisper):
    description = whisper.get("/openapi.json").json()
    assert description["openapi"].startswith("3.0.")
    assert set(description["paths"]) == {
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/audio/detect-language",
        "/v1/audio/jobs/{job_id}",
        "/v1/audio/jobs/{job_id}/events",
        "/v1/audio/jobs/{job_id}/result",
        "/v1/models",
        "/v1/models/{name}",
        "/transcribe",
        "/metrics",
        "/health",
        "/health/busy",
        "/health/live",
        "/health/ready",
    }
    operations = [
        operation["operationId"] for path in description["paths"].values() for operation in path.values()
    ]
    assert len(set(operations)) == len(operations)


def test_description_names_every_field_of_a_transcription(whisper):
    """What is accepted but for OpenAI's names that are refused, and objects' keys, which follow from one."""
    operation = whisper.get("/openapi.json").json()["paths"]["/v1/audio/transcriptions"]["post"]
    described = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {name.split("[")[0] for name in described} == {name.split("[")[0] for name in fields.HONOURED}


def test_meeting_applications_get_text_language_and_segments(whisper, recording):
    response = whisper.transcribe(
        {"language": "en", "model": "whisper-1"},
        path="/transcribe",
        files={"file": ("meeting.wav", recording)},
    )
    body = response.json()
    assert (response.status_code, set(body)) == (200, {"text", "language", "segments"})
    assert "selfish" in body["text"]
    assert body["language"] == "en"
    assert "".join(segment["text"] for segment in body["segments"]).strip() == body["text"]
    assert body["segments"][0]["end"] > body["segments"][0]["start"]


@pytest.mark.parametrize(
    ("path", "field"), [("/transcribe", "prompt"), ("/v1/audio/detect-language", "language")]
)
def test_other_forms_refuse_what_they_do_not_know_too(whisper, recording, path, field):
    error = whisper.transcribe({field: "en"}, path=path, files={"file": recording}).json()["error"]
    assert (error["param"], error["code"]) == (field, "unknown_field")


@pytest.mark.parametrize("path", ["/transcribe", "/v1/audio/detect-language"])
def test_other_forms_refuse_bad_input_alike(whisper, recording, path):
    refused = [
        whisper.transcribe(path=path, files={"file": b""}),
        whisper.transcribe(path=path, files={"file": b"no sound"}),
        whisper.transcribe({"model": "gpt-9"}, path=path, files={"file": recording}),
        whisper.transcribe({"model": "whisper-1"}, path=path),
    ]
    assert [response.status_code for response in refused] == [400, 400, 404, 400]
    assert [response.json()["error"]["code"] for response in refused] == [
        "empty_file",
        "invalid_audio",
        "model_not_found",
        "malformed_form",
    ]


def test_health_names_the_model(whisper):
    assert whisper.get("/health").json() == {"status": "ok", "model": "whisper-tiny"}


def test_language_is_told_with_its_name_and_how_sure_that_is(whisper, recording):
    body = whisper.transcribe(path="/v1/audio/detect-language", files={"file": recording}).json()
    assert (body["language"], body["language_name"]) == ("en", "english")
    assert 0.5 < body["probability"] <= 1
    assert 0 < body["duration"] <= 5.3  # a model that knows one language need not look far


def test_metrics_tell_what_was_transcribed(whisper, recording):
    before = metrics_of(whisper)
    assert whisper.transcribe(files={"file": recording}).status_code == 200
    after = metrics_of(whisper)
    grown = {name for name in after if after[name] > before.get(name, 0)}
    assert after["speech_audio_seconds_total"] - before.get("speech_audio_seconds_total", 0) == pytest.approx(
        5.3
    )
    assert grown >= {
        "speech_processing_seconds_total",
        'speech_jobs_total{state="completed"}',
        'speech_http_requests_total{route="/v1/audio/transcriptions",status="200"}',
    }
    assert after["speech_jobs_waiting"] == after["speech_jobs_running"] == 0
    assert after["speech_speed_ratio"] > 0


def test_metrics_tell_of_the_models(whisper):
    figures = metrics_of(whisper)
    assert figures["speech_models_loaded"] == 1
    assert figures['speech_model_loads_total{outcome="loaded"}'] == 1
    assert figures["speech_model_load_seconds_total"] > 0


def metrics_of(whisper):
    lines = whisper.get("/metrics").text.splitlines()
    return {
        name: float(value)
        for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    }


def test_every_answer_has_a_request_id_and_a_callers_own_is_kept(whisper):
    first, second = (whisper.get("/health/live").headers["x-request-id"] for _ in range(2))
    assert first != second
    kept = whisper.get("/v1/models", headers={"x-request-id": "from-the-gateway.1"})
    assert kept.headers["x-request-id"] == "from-the-gateway.1"
    replaced = whisper.get("/v1/models", headers={"x-request-id": "a b"})
    assert re.fullmatch("[0-9a-f]{32}", replaced.headers["x-request-id"])


def test_unforeseen_error_is_500_in_the_same_shape_and_its_traceback_only_logged(caplog):
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/broken")
    async def broken():
        raise KeyError("a secret of the server")

    async def ask():
        transport = httpx.ASGITransport(AccessLog(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/broken", headers={"x-request-id": "r-1"})

    response = asyncio.run(ask())
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (500, "server_error", "internal_error")
    assert "r-1" in error["message"]
    assert response.headers["x-request-id"] == "r-1"
    assert response.headers["x-should-retry"] == "false"
    assert "secret" not in response.text
    assert "a secret of the server" in caplog.text


def test_one_log_line_a_request_with_its_length_and_speed(whisper, recording):
    whisper.transcribe(files={"file": recording}, headers={"x-request-id": "log-line-test"})
    lines = whisper.lines("request_id=log-line-test")
    assert len(lines) == 1
    for part in ("status=200", "path=/v1/audio/transcriptions", "audio_s=5.30", "speed=", "language=en"):
        assert part in lines[0]
    assert re.search(r" duration_s=\d+\.\d{3} ", lines[0])
    assert "/health/ready" not in whisper.log


def test_nothing_that_a_caller_sends_or_says_is_logged(whisper, recording):
    """A needle in every field, name and header, accepted and refused, and in the text around the parts."""
    headers = {"authorization": "Bearer NEEDLE", "cookie": "NEEDLE", "user-agent": "NEEDLE"}
    kept = {"prompt": "NEEDLE", "hotwords": "NEEDLE", "keywords": "NEEDLE"}
    sent = {"file": ("NEEDLE.wav", recording, "audio/NEEDLE")}

    def ask(*args, **kwargs):
        return whisper.transcribe(*args, **{**kwargs, "headers": headers | kwargs.get("headers", {})})

    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="NEEDLE"\r\nNEEDLE: NEEDLE\r\n\r\n'
    around = (
        part + b"NEEDLE",
        b"NEEDLE" + part,
        part + b"NEEDLE\r\n--b--\r\nNEEDLE",
        b"--b\r\nNEEDLE\r\n\r\n",
    )
    names = {*fields.HONOURED, *fields.UNSUPPORTED, "NEEDLE", "chunking_strategy[NEEDLE]"} - {"file", *kept}
    answers = [
        ask(kept, files=sent),
        whisper.get("/v1/models?NEEDLE", headers={"x-request-id": "NEEDLE IN IT"}),
        ask(path="/v1/audio/transcriptions?NEEDLE=NEEDLE", files=sent),
        ask(files={"NEEDLE": ("NEEDLE", recording)}),
        ask(files={"file": ("NEEDLE.wav", b"NEEDLE")}),
        *(ask({name: "NEEDLE"}, files=sent) for name in sorted(names)),
        *(ask(content=body, headers={"content-type": "multipart/form-data; boundary=b"}) for body in around),
    ]
    statuses = [response.status_code for response in answers]
    assert statuses[:2] == [200, 200]
    assert set(statuses[2:]) == {400, 404}
    for response in answers:
        whisper.lines(f"request_id={response.headers['x-request-id']}")
    assert "NEEDLE" not in whisper.log
    assert "selfish" not in whisper.log


def test_memory_is_never_dumped_to_the_disk(whisper):
    """It holds recordings and transcripts."""
    limits = Path(f"/proc/{whisper.process.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


def test_path_cannot_forge_what_the_log_says(whisper):
    whisper.get("/nothing%20status=200%20user=root%0Aevent=forged")
    line = whisper.lines("forged")[0]
    assert "path=/nothing%20status=200%20user=root%0Aevent=forged status=404 " in line
