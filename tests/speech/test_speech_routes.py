"""The routes around transcription: models, health, docs, request ids and the log."""

import asyncio
import re

import httpx
import pytest
from fastapi import FastAPI
from speech_common.access import AccessLog
from speech_common.replies import install_error_handlers


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
        "/v1/models",
        "/v1/models/{name}",
        "/health/live",
        "/health/ready",
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


def test_one_log_line_a_request_and_nothing_of_its_content(whisper, recording):
    headers = {"x-request-id": "log-line-test"}
    whisper.transcribe(
        {"prompt": "SECRETPROMPT"}, files={"file": ("SECRETNAME.wav", recording)}, headers=headers
    )
    lines = whisper.lines("request_id=log-line-test")
    assert len(lines) == 1
    for part in ("status=200", "path=/v1/audio/transcriptions", "audio_s=5.30", "speed=", "language=en"):
        assert part in lines[0]
    assert "SECRET" not in whisper.log
    assert "selfish" not in whisper.log
    assert "/health/ready" not in whisper.log


def test_path_cannot_forge_what_the_log_says(whisper):
    whisper.get("/nothing%20status=200%20user=root%0Aevent=forged")
    line = whisper.lines("forged")[0]
    assert "path=/nothing%20status=200%20user=root%0Aevent=forged status=404 " in line
