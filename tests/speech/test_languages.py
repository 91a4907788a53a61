"""What a model of many languages adds, through the real SDK: whisper-base, a server of its own, one brief recording."""

import openai
import pytest
from openai.types.audio import Translation, TranslationVerbose


@pytest.fixture(scope="module")
def server(start_whisper, base_model):
    server = start_whisper(WHISPER_MODEL=str(base_model), WHISPER_MODEL_NAME="base")
    server.wait_until_ready()
    return server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


def ask(client, brief, **fields):
    return client.audio.transcriptions.create(
        model="base", file=brief, response_format="verbose_json", **fields
    )


def test_language_is_detected_and_told_by_its_name(client, brief):
    answer = ask(client, brief)
    assert answer.language == "english"
    assert "young man" in answer.text


def test_language_is_detected_among_those_that_may_be(client, brief):
    assert ask(client, brief, languages=["de", "fr"]).language in {"german", "french"}


def test_language_that_is_given_is_taken(client, brief):
    answer = ask(
        client, brief, language="fr", temperature=0.2
    )  # one attempt: no language fits but the spoken one
    assert answer.language == "french"
    assert answer.text


def test_language_that_came_with_a_later_model_is_refused(client, brief):
    with pytest.raises(openai.BadRequestError, match="'yue'") as caught:
        ask(client, brief, language="yue")
    assert caught.value.param == "language"


def test_translation_is_english_and_of_the_types_that_the_sdk_says(client, brief):
    with pytest.deprecated_call():
        brief_answer = client.audio.translations.create(model="base", file=brief)
        answer = client.audio.translations.create(model="base", file=brief, response_format="verbose_json")
    assert type(brief_answer) is Translation
    assert type(answer) is TranslationVerbose
    assert (answer.language, answer.to_dict()["task"]) == ("english", "translate")
    assert answer.text == brief_answer.text
    assert "young man" in answer.text
    assert answer.segments


def test_detection_names_the_language_and_how_sure_that_is(server, brief):
    answer = server.transcribe(path="/v1/audio/detect-language", files={"file": brief}).json()
    assert (answer["language"], answer["language_name"]) == ("en", "english")
    assert 0.5 < answer["probability"] <= 1
