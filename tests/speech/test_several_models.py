"""Models that are dropped into the directory of a running server, and taken out of it again."""

import shutil

import pytest
from checkpoints import converted, linked, replaced


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def whisper(start_whisper, directory):
    whisper = start_whisper(
        WHISPER_MODELS_DIR=str(directory), WHISPER_ALIASES="fast=tuned", WHISPER_MODELS_LOADED="1"
    )
    whisper.wait_until_ready()
    return whisper


def listed(whisper):
    return [model["id"] for model in whisper.get("/v1/models").json()["data"]]


def test_directory_is_a_model_from_the_moment_it_is_dropped_in_to_that_when_it_goes(
    whisper, directory, tiny_model, brief
):
    def asked(model):
        response = whisper.transcribe({"model": model}, files={"file": brief})
        return response.status_code, response.json().get("text") or response.json()["error"]["code"]

    assert listed(whisper) == ["whisper-tiny", "whisper-1"]
    assert asked("tuned") == (404, "model_not_found")
    converted(tiny_model, directory / ".tuned", "int8").rename(directory / "tuned")
    assert listed(whisper) == ["whisper-tiny", "whisper-1", "tuned", "fast"]
    status, text = asked("tuned")
    assert status == 200
    assert "young man" in text
    assert asked("fast") == (200, text)
    assert asked("whisper-1")[0] == 200
    for line in ("event=model_unloaded model=whisper-tiny", "event=model_unloaded model=tuned"):
        assert len(whisper.lines(line)) == 1
    assert len(whisper.lines("event=model_loaded model=whisper-tiny")) == 2
    shutil.rmtree(directory / "tuned")
    assert listed(whisper) == ["whisper-tiny", "whisper-1"]
    for name in ("tuned", "fast"):
        assert asked(name) == (404, "model_not_found")


def test_broken_directory_is_told_to_who_asks_for_it_and_logged_once(whisper, directory, tiny_model, brief):
    replaced(linked(tiny_model, directory / "broken"), "config.json", {})
    assert "broken" not in listed(whisper)
    for _ in range(2):
        response = whisper.transcribe({"model": "broken"}, files={"file": brief})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")
        assert (
            "broken: config.json is not the one that goes with model.bin"
            in response.json()["error"]["message"]
        )
    assert len(whisper.lines("event=model_rejected name='broken'")) == 1
