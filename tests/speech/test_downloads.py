"""Models from the hub: the first one, and those that requests ask for. The hub is on loopback, its models are real."""

import pytest
from fake_hub import FakeHub


@pytest.fixture(scope="module")
def hub(tiny_model):
    with FakeHub(**{"tiny": tiny_model, "tiny.en": tiny_model}) as hub:
        yield hub


@pytest.fixture(scope="module")
def whisper(start_whisper, hub, tmp_path_factory):
    whisper = start_whisper(
        WHISPER_MODEL="tiny",
        WHISPER_MODEL_NAME="",
        HF_ENDPOINT=hub.url,
        HF_HOME=str(tmp_path_factory.mktemp("hub")),
        HF_HUB_OFFLINE="0",
    )
    whisper.wait_until_ready()
    return whisper


def text_of(whisper, brief, **fields):
    response = whisper.transcribe(fields, files={"file": brief})
    assert response.status_code == 200, response.text
    return response.json()["text"]


def test_default_is_downloaded_by_its_size(whisper, brief):
    assert [model["id"] for model in whisper.get("/v1/models").json()["data"]] == ["tiny", "whisper-1"]
    assert "young man" in text_of(whisper, brief)


def test_size_that_a_request_asks_for_is_downloaded(whisper, hub, brief):
    assert "young man" in text_of(whisper, brief, model="tiny.en")
    fetched = [path for path in hub.asked if path.startswith("/Systran/faster-whisper-tiny.en/resolve/")]
    assert any(path.endswith("/model.bin") for path in fetched)
    hub.asked.clear()
    assert "young man" in text_of(whisper, brief, model="Systran/faster-whisper-tiny.en")
    assert hub.asked == []
    assert len(whisper.lines("event=downloaded repository=Systran/faster-whisper-tiny.en")) == 1
    assert "Fetching" not in whisper.log


def test_size_that_the_hub_lacks_is_told_with_what_is_missing(whisper, brief):
    response = whisper.transcribe({"model": "small"}, files={"file": brief})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (503, "model_unavailable")
    assert (
        "small: the hub has no model Systran/faster-whisper-small. It is not in the cache at"
        in error["message"]
    )
    assert response.headers["x-should-retry"] == "false"


def test_any_other_name_on_the_hub_is_unknown(whisper, hub, brief):
    hub.asked.clear()
    response = whisper.transcribe({"model": "owner/name"}, files={"file": brief})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert hub.asked == []
