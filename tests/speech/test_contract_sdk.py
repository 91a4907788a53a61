"""The contract as the real openai SDK keeps it: every format and every field, sync and async, over real speech.

Streams and jobs have their own: test_streaming.py, test_streaming_model.py, test_job_routes.py; several languages
test_languages.py.
"""

import asyncio
import itertools
import re

import openai
import pytest
from openai.types.audio import Transcription, TranscriptionVerbose

FORMATS = {
    "json": Transcription,
    "text": str,
    "srt": str,
    "vtt": str,
    "verbose_json": TranscriptionVerbose,
}


@pytest.fixture(scope="module")
def client(whisper):
    """The SDK as programs use it, but for the retries, which would hide an error."""
    with openai.OpenAI(base_url=f"{whisper.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


def ask(client, recording, **fields):
    return client.audio.transcriptions.create(model="whisper-1", file=recording, **fields)


def at_once(whisper, *calls):
    """Make calls with the async client, at the same time."""

    async def run():
        async with openai.AsyncOpenAI(
            base_url=f"{whisper.url}/v1", api_key="unused", max_retries=0, timeout=120
        ) as client:
            return await asyncio.gather(*(call(client) for call in calls))

    return asyncio.run(run())


@pytest.fixture(scope="module")
def answers(client, brief):
    """One answer in each format."""
    return {each: ask(client, brief, response_format=each) for each in FORMATS}


@pytest.mark.parametrize(("response_format", "kind"), FORMATS.items())
def test_each_format_is_of_the_type_that_the_sdk_says(answers, response_format, kind):
    answer = answers[response_format]
    assert type(answer) is kind
    assert "young man" in (answer if kind is str else answer.text)


def test_async_client_gets_the_same_in_every_format(whisper, answers, brief):
    def call(response_format):
        return lambda client: ask(client, brief, response_format=response_format)

    assert at_once(whisper, *(call(each) for each in FORMATS)) == list(answers.values())


def test_formats_say_the_same_text(answers):
    texts = {}
    for response_format, kind in FORMATS.items():
        body = answers[response_format] if kind is str else answers[response_format].text
        lines = [line for line in body.splitlines() if "-->" not in line and not line.isdigit()]
        texts[response_format] = " ".join(" ".join(lines).removeprefix("WEBVTT").split())
    assert len(set(texts.values())) == 1, texts


def test_text_is_plain_text_and_not_a_json_string(answers):
    assert answers["text"].endswith(".\n")
    assert not answers["text"].startswith('"')


def test_json_tells_the_seconds_used(answers):
    assert answers["json"].usage.to_dict() == {"type": "duration", "seconds": 2.99}


def test_verbose_json_has_whole_segments_and_no_words_by_default(answers):
    body = answers["verbose_json"].to_dict()
    assert (body["task"], body["language"], body["duration"]) == ("transcribe", "english", 2.99)
    assert body["usage"] == {"type": "duration", "seconds": 2.99}
    assert "words" not in body
    fields = "id seek start end text tokens temperature avg_logprob compression_ratio no_speech_prob"
    for number, segment in enumerate(body["segments"]):
        assert set(segment) == set(fields.split())
        assert None not in segment.values()
        assert segment["id"] == number
        assert segment["tokens"]
        assert 0 <= segment["start"] < segment["end"] <= 3.1
        assert segment["avg_logprob"] < 0
    assert "".join(segment["text"] for segment in body["segments"]).strip() == body["text"]


def test_verbose_json_has_every_field_that_the_sdk_declares(client, recording):
    answer = ask(
        client, recording, response_format="verbose_json", timestamp_granularities=["segment", "word"]
    )
    for segment in answer.segments:
        assert None not in [getattr(segment, name) for name in type(segment).model_fields]
    for word in answer.words:
        assert word.word == word.word.strip() != ""
        assert 0 <= word.start <= word.end <= 5.4


def test_word_granularity_alone_leaves_segments_out(client, recording):
    body = ask(client, recording, response_format="verbose_json", timestamp_granularities=["word"]).to_dict()
    assert "segments" not in body
    assert [set(word) for word in body["words"]] == [{"word", "start", "end"}] * len(body["words"])
    assert " ".join(word["word"] for word in body["words"]) == body["text"].replace("-", " -")
    times = [time for word in body["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert times[-1] <= 5.4


@pytest.mark.parametrize("mark", [",", "."])
def test_subtitles_obey_their_limits(client, recording, mark):
    body = ask(
        client,
        recording,
        response_format="srt" if mark == "," else "vtt",
        extra_body={"word_timestamps": True},
    )
    stamp = rf"\d\d:\d\d:\d\d{re.escape(mark)}\d{{3}}"
    times = re.findall(rf"^({stamp}) --> ({stamp})$", body, re.MULTILINE)
    seconds = [[float(time[-6:].replace(",", ".")) for time in pair] for pair in times]
    assert seconds
    assert all(start < end <= start + 7 for start, end in seconds)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(seconds))
    assert max(len(line) for line in body.splitlines()) <= 42


@pytest.mark.parametrize(
    "fields",
    [
        {"language": "en"},
        {"languages": ["en"]},
        {"prompt": "Jane Austen, Emma."},
        {"temperature": 0.2},
        {"chunking_strategy": "auto"},
        {"chunking_strategy": {"type": "server_vad"}},
        {
            "chunking_strategy": {
                "type": "server_vad",
                "threshold": 0.3,
                "prefix_padding_ms": 500,
                "silence_duration_ms": 400,
            }
        },
        {"stream": False},
        {"keywords": ["young", "Emma"]},
        {"extra_body": {"hotwords": "young"}},
        {"extra_body": {"vad_filter": True}},
        {"extra_body": {"vad_filter": False, "beam_size": 1, "batch_size": 1, "word_timestamps": False}},
        {"extra_body": {"batch_size": 4}},
        {"extra_body": {"task": "transcribe"}},
    ],
    ids=str,
)
def test_field_that_is_honoured_is_accepted_as_the_sdk_sends_it(client, brief, fields):
    assert "young man" in ask(client, brief, **fields).text.lower()


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"include": ["logprobs"]}, "include", "unsupported_field"),
        ({"response_format": "diarized_json"}, "response_format", "unsupported_field"),
        ({"known_speaker_names": ["Ann"]}, "known_speaker_names", "unsupported_field"),
        (
            {"known_speaker_references": ["data:audio/wav;base64,AAAA"]},
            "known_speaker_references",
            "unsupported_field",
        ),
        ({"language": "klingon"}, "language", "invalid_value"),
        ({"languages": ["en", "klingon"]}, "languages", "invalid_value"),
        ({"temperature": 2}, "temperature", "invalid_value"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "invalid_value"),
        ({"chunking_strategy": {"type": "semantic_vad"}}, "chunking_strategy[type]", "invalid_value"),
        ({"extra_body": {"batch_size": 1000}}, "batch_size", "invalid_value"),
        ({"extra_body": {"colour": "red"}}, "colour", "unknown_field"),
        ({"extra_query": {"language": "en"}}, "language", "unexpected_parameter"),
    ],
    ids=str,
)
def test_field_that_is_not_honoured_raises_and_is_named(client, recording, fields, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, recording, **fields)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_stream_that_could_not_carry_what_is_asked_for_raises_and_is_not_silent(client, recording):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, recording, stream=True, response_format="verbose_json")
    assert caught.value.param == "stream"


def test_unknown_model_raises_not_found(client, recording):
    with pytest.raises(openai.NotFoundError, match="whisper-tiny") as caught:
        client.audio.transcriptions.create(model="gpt-9", file=recording)
    assert caught.value.code == "model_not_found"


def test_file_over_the_limit_raises_and_is_not_sent_again(whisper, recording):
    with (
        openai.OpenAI(base_url=f"{whisper.url}/v1", api_key="unused", max_retries=2) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        ask(client, bytes(6_000_000))
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")
    assert "x-stainless-retry-count" in caught.value.request.headers
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


def test_models_are_listed_and_retrieved_whole(client):
    listed = list(client.models.list())
    assert {model.id for model in listed} >= {"whisper-tiny", "whisper-1"}
    for model in listed:
        assert (model.object, type(model.created), type(model.owned_by)) == ("model", int, str)
        assert client.models.retrieve(model.id) == model


def test_unknown_model_is_not_found_in_the_list_either(client):
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("owner/name")


def test_english_model_refuses_to_translate(client, recording):
    with pytest.deprecated_call(), pytest.raises(openai.BadRequestError) as caught:
        client.audio.translations.create(model="whisper-1", file=recording)
    assert caught.value.param == "model"


def test_temperature_that_is_given_is_told(client, brief):
    answer = ask(client, brief, response_format="verbose_json", temperature=0.2)
    assert [segment.temperature for segment in answer.segments] == [pytest.approx(0.2)] * len(answer.segments)


def test_key_opens_the_server_and_another_raises(start_whisper, brief):
    whisper = start_whisper(API_KEYS="first-key, second-key")
    whisper.wait_until_ready()
    assert whisper.get("/health").json() == {"status": "ok", "model": "whisper-tiny"}
    for key in ("first-key", "second-key"):
        with openai.OpenAI(base_url=f"{whisper.url}/v1", api_key=key, max_retries=0) as client:
            assert "young man" in ask(client, brief).text
    with openai.OpenAI(base_url=f"{whisper.url}/v1", api_key="NEEDLE", max_retries=0) as client:
        for call in (lambda: ask(client, brief), client.models.list):
            with pytest.raises(openai.AuthenticationError) as caught:
                call()
            assert caught.value.code == "invalid_api_key"
            assert caught.value.response.headers["www-authenticate"].startswith("Bearer")
    assert whisper.lines("status=401")
    assert "NEEDLE" not in whisper.log
    assert "first-key" not in whisper.log
