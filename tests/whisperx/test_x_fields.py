"""Every field of the two forms: what it becomes, and what is refused by its name."""

import base64

import pytest
from speech_common.errors import FieldError, InvalidValue, MissingField, UnknownField, UnsupportedField
from speech_common.formats import Granularity, ResponseFormat
from speech_common.forms import Form
from whisperx_server.fields import transcribe_request, transcription_request
from whisperx_server.options import Options, Reference


def form(fields):
    """Make a form of fields, whose `__` stands for brackets: `chunking_strategy__type`."""
    named = {}
    for name, value in fields.items():
        outer, _, key = name.partition("__")
        named[f"{outer}[{key}]" if key else outer] = value if isinstance(value, list) else [value]
    return Form(named, None)


def openai(of_path="transcribe", **fields):
    return transcription_request(form(fields), task=of_path)


def transcribe(**fields):
    return transcribe_request(form(fields))


def sample(content=b"RIFF", kind="audio/wav"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def test_no_field_at_all_is_the_plainest_request():
    assert openai().options == Options()
    assert openai().response_format is ResponseFormat.JSON
    request = transcribe()
    assert request.response_format is ResponseFormat.WHISPERX_JSON
    assert request.options == Options(times_words=True, words_for="format")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"language": "FR"}, {"language": "fr"}),
        ({"diarize": "true"}, {"diarize": True, "times_words": True}),
        (
            {"diarize": "true", "min_speakers": "2", "max_speakers": "2"},
            {"diarize": True, "times_words": True, "min_speakers": 2, "max_speakers": 2},
        ),
        ({"beam_size": "10"}, {"beam_size": 10}),
        ({"batch_size": "4"}, {"batch_size": 4}),
        ({"hotwords": "a b", "keywords": ["c"]}, {"hotwords": "a b, c"}),
        ({"prompt": "Hi, Ann."}, {"prompt": "Hi, Ann."}),
        ({"task": "translate"}, {"task": "translate"}),
        ({"temperature": "0"}, {}),
        ({"chunking_strategy": "auto"}, {"vad_filter": True}),
        ({"response_format": "srt"}, {"times_words": True, "words_for": "response_format"}),
        ({"response_format": "verbose_json"}, {"times_words": True}),
        ({"response_format": "tsv"}, {"times_words": True}),
        ({"word_timestamps": "true"}, {"times_words": True, "words_for": "word_timestamps"}),
        ({"response_format": "text"}, {}),
        ({"response_format": "diarized_json"}, {"diarize": True, "times_words": True}),
    ],
)
def test_field_becomes_an_option(fields, expected):
    assert openai(**fields).options == Options(**expected)


@pytest.mark.parametrize(
    ("name", "response_format", "times_words", "words_for"),
    [
        ("json", "whisperx_json", True, "format"),
        ("txt", "text", False, None),
        ("srt", "srt", True, "format"),
        ("tsv", "tsv", True, None),
        ("vtt", "vtt", True, "format"),
    ],
)
def test_format_is_named_as_whisperx_does(name, response_format, times_words, words_for):
    request = transcribe(format=name)
    assert request.response_format == response_format
    assert request.options == Options(times_words=times_words, words_for=words_for)


def test_known_speakers_have_a_name_and_a_voice_each():
    request = openai(
        known_speaker_names=["Ann", "Bob"],
        known_speaker_references=[sample(b"1"), sample(b"2", "audio/mpeg")],
    )
    assert request.options.references == (Reference("Ann", b"1"), Reference("Bob", b"2"))
    assert request.options.diarize


def test_words_are_timed_for_those_who_see_them():
    request = openai(response_format="verbose_json", timestamp_granularities=["word"])
    assert request.options == Options(times_words=True, words_for="timestamp_granularities")
    assert request.granularities == {Granularity.WORD}


@pytest.mark.parametrize("value", ["json", "text", "diarized_json"])
def test_what_events_can_carry_is_streamed(value):
    assert openai(stream="true", response_format=value).stream


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"min_speakers": "3", "max_speakers": "2", "diarize": "true"}, InvalidValue, "min_speakers"),
        ({"min_speakers": "0", "diarize": "true"}, InvalidValue, "min_speakers"),
        ({"max_speakers": "65", "diarize": "true"}, InvalidValue, "max_speakers"),
        ({"max_speakers": "two", "diarize": "true"}, InvalidValue, "max_speakers"),
        ({"max_speakers": "2"}, InvalidValue, "max_speakers"),
        ({"min_speakers": "2", "diarize": "false"}, InvalidValue, "min_speakers"),
        ({"diarize": "perhaps"}, InvalidValue, "diarize"),
        ({"language": "xx"}, InvalidValue, "language"),
        ({"wrong": "1"}, UnknownField, "wrong"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name_on_both_paths(fields, kind, param):
    for read in (openai, transcribe):
        with pytest.raises(kind) as refused:
            read(**fields)
        assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"response_format": "whisperx_json"}, InvalidValue, "response_format"),
        ({"response_format": "diarized_json", "diarize": "false"}, InvalidValue, "diarize"),
        ({"response_format": "diarized_json", "task": "translate"}, InvalidValue, "response_format"),
        ({"response_format": "srt", "stream": "true"}, InvalidValue, "stream"),
        ({"temperature": "0.4"}, UnsupportedField, "temperature"),
        ({"include": "logprobs"}, UnsupportedField, "include"),
        ({"prompt": "<|endoftext|>"}, InvalidValue, "prompt"),
        ({"known_speaker_names": "Ann"}, MissingField, "known_speaker_references"),
        ({"known_speaker_references": sample()}, MissingField, "known_speaker_names"),
        ({"known_speaker_names": ["Ann", "Bob"], "known_speaker_references": sample()}, InvalidValue, "known_speaker_names"),
        ({"known_speaker_names": ["Ann"] * 2, "known_speaker_references": [sample()] * 2}, InvalidValue, "known_speaker_names"),
        ({"known_speaker_names": ["Ann", "Bob", "Cid", "Dan", "Eve"], "known_speaker_references": [sample()] * 5}, InvalidValue, "known_speaker_names"),
        ({"known_speaker_names": "SPEAKER_01", "known_speaker_references": sample()}, InvalidValue, "known_speaker_names"),
        ({"known_speaker_names": "Ann" * 14, "known_speaker_references": sample()}, InvalidValue, "known_speaker_names"),
        ({"known_speaker_names": "A", "known_speaker_references": sample()}, InvalidValue, "known_speaker_names"),
        ({"known_speaker_names": "AB", "known_speaker_references": sample()}, InvalidValue, "known_speaker_names"),
        ({"known_speaker_names": "X]: no\n[Bob", "known_speaker_references": sample()}, InvalidValue, "known_speaker_names"),
        ({"known_speaker_names": "\x1b[31mBob", "known_speaker_references": sample()}, InvalidValue, "known_speaker_names"),
        ({"response_format": "text", "diarize": "true", "stream": "true"}, InvalidValue, "stream"),
        ({"hotwords": "word " * 1000}, InvalidValue, "hotwords"),
        ({"known_speaker_names": "Ann", "known_speaker_references": "https://example.org/a.wav"}, InvalidValue, "known_speaker_references"),
        ({"known_speaker_names": "Ann", "known_speaker_references": "data:audio/wav;base64,a"}, InvalidValue, "known_speaker_references"),
    ],
)  # fmt: skip
def test_what_openai_would_have_is_refused_by_its_name(fields, kind, param):
    with pytest.raises(kind) as refused:
        openai(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize("fields", [{"format": "docx"}, {"response_format": "json"}, {"stream": "true"}])
def test_transcribe_has_no_other_fields(fields):
    with pytest.raises(FieldError) as refused:
        transcribe(**fields)
    assert refused.value.param == next(iter(fields))


def test_of_a_prompt_the_end_counts():
    assert openai(prompt="a " * 500_000 + "end.").options.prompt.endswith("a a end.")
    assert len(openai(prompt="a " * 500_000 + "end.").options.prompt) == 8_000


def test_translations_have_no_other_task():
    assert openai("translate").options.task == "translate"
    with pytest.raises(InvalidValue):
        openai("translate", task="transcribe")
