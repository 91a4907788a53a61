"""Every field of the contract: what it becomes, and what is refused by its name."""

import pytest
from speech_common.errors import FieldError, InvalidValue, RepeatedField, UnknownField, UnsupportedField
from speech_common.formats import Granularity, ResponseFormat
from speech_common.forms import Form
from speech_common.sound.detection import VoiceDetection
from whisper_server.fields import meeting_request, transcription_request
from whisper_server.options import Options


def read(of_path="transcribe", **fields):
    """Read fields, whose `__` stands for brackets: `chunking_strategy__type`."""
    named = {}
    for name, value in fields.items():
        outer, _, key = name.partition("__")
        named[f"{outer}[{key}]" if key else outer] = value if isinstance(value, list) else [value]
    return transcription_request(Form(named, None), task=of_path)


def options(of_path="transcribe", **fields):
    return read(of_path, **fields).options


def test_no_field_at_all_is_the_plainest_request():
    request = read()
    assert (request.model, request.response_format, request.stream) == (None, ResponseFormat.JSON, False)
    assert request.granularities == {Granularity.SEGMENT}
    assert request.options == Options()


def test_blank_fields_count_as_not_sent():
    """As the page under /docs sends them."""
    names = (
        "model language prompt response_format temperature stream hotwords vad_filter beam_size batch_size task "
        "word_timestamps chunking_strategy include languages keywords timestamp_granularities known_speaker_names"
    )
    assert read(**dict.fromkeys(names.split(), " ")) == read()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"language": "FR"}, {"language": "fr"}),
        ({"languages": "fr"}, {"language": "fr"}),
        ({"languages": ["fr", "FR"]}, {"language": "fr"}),
        ({"languages": ["fr", "en", "fr"]}, {"languages": ("fr", "en")}),
        ({"language": "fr", "languages": ["en", "fr"]}, {"language": "fr"}),
        ({"prompt": "Hi, Ann."}, {"prompt": "Hi, Ann."}),
        ({"hotwords": "a b", "keywords": ["c", "", "d"]}, {"hotwords": "a b, c, d"}),
        ({"temperature": "0"}, {"temperature": None}),
        ({"temperature": "0.4"}, {"temperature": 0.4}),
        ({"temperature": "1e-40"}, {"temperature": None}),
        ({"prompt": "a < b | c > d <| e"}, {"prompt": "a < b | c > d <| e"}),
        ({"beam_size": "10"}, {"beam_size": 10}),
        ({"batch_size": "1"}, {"batch_size": 1}),
        ({"batch_size": "64"}, {"batch_size": 64}),
        ({"vad_filter": "True"}, {"vad_filter": True}),
        ({"vad_filter": "0"}, {"vad_filter": False}),
        ({"task": "translate"}, {"task": "translate"}),
        ({"word_timestamps": "true"}, {"word_timestamps": True}),
        ({"chunking_strategy": "auto"}, {"vad_filter": True}),
        ({"chunking_strategy": "auto", "vad_filter": "true"}, {"vad_filter": True}),
        (
            {"chunking_strategy__type": "server_vad"},
            {"vad_filter": True, "voice": VoiceDetection(0.5, 300, 200)},
        ),
        (
            {
                "chunking_strategy__type": "server_vad",
                "chunking_strategy__threshold": "0.25",
                "chunking_strategy__prefix_padding_ms": "0",
                "chunking_strategy__silence_duration_ms": "1500",
            },
            {"vad_filter": True, "voice": VoiceDetection(0.25, 0, 1500)},
        ),
        ({"include": []}, {}),
    ],
)
def test_field_becomes_an_option(fields, expected):
    assert options(**fields) == Options(**expected)


def test_path_of_translations_translates_and_allows_nothing_else():
    assert options("translate").task == "translate"
    assert options("translate", task="translate").task == "translate"
    with pytest.raises(InvalidValue):
        options("translate", task="transcribe")


@pytest.mark.parametrize("response_format", ["json", "text", ""])
def test_text_may_be_streamed(response_format):
    assert read(stream="true", response_format=response_format).stream is True


@pytest.mark.parametrize("response_format", ["verbose_json", "srt", "vtt"])
def test_what_events_cannot_carry_is_not_streamed(response_format):
    with pytest.raises(InvalidValue) as caught:
        read(stream="true", response_format=response_format)
    assert caught.value.param == "stream"
    assert read(stream="false", response_format=response_format).stream is False


@pytest.mark.parametrize(
    ("error", "param", "fields"),
    [
        (UnsupportedField, "include", {"include": "logprobs"}),
        (UnsupportedField, "known_speaker_names", {"known_speaker_names": "Ann"}),
        (
            UnsupportedField,
            "known_speaker_references",
            {"known_speaker_references": "data:audio/wav;base64,AA"},
        ),
        (UnsupportedField, "response_format", {"response_format": "diarized_json"}),
        (UnknownField, "colour", {"colour": "red"}),
        (UnknownField, "chunking_strategy[colour]", {"chunking_strategy__colour": "red"}),
        (UnknownField, "chunking_strategy[type", {"chunking_strategy[type": "auto"}),
        (UnknownField, "model[type]", {"model__type": "auto"}),
        (InvalidValue, "chunking_strategy", {"chunking_strategy": "manual"}),
        (InvalidValue, "chunking_strategy", {"chunking_strategy": '{"type": "server_vad"}'}),
        (
            InvalidValue,
            "chunking_strategy",
            {"chunking_strategy": "auto", "chunking_strategy__type": "server_vad"},
        ),
        (InvalidValue, "chunking_strategy[type]", {"chunking_strategy__type": "auto"}),
        (InvalidValue, "chunking_strategy[threshold]", {"chunking_strategy__threshold": "0.5"}),
        (
            InvalidValue,
            "chunking_strategy[prefix_padding_ms]",
            {"chunking_strategy": "auto", "chunking_strategy__prefix_padding_ms": "5"},
        ),
        (
            InvalidValue,
            "chunking_strategy[threshold]",
            {"chunking_strategy__type": "server_vad", "chunking_strategy__threshold": "1.1"},
        ),
        (
            InvalidValue,
            "chunking_strategy[silence_duration_ms]",
            {"chunking_strategy__type": "server_vad", "chunking_strategy__silence_duration_ms": "-1"},
        ),
        (RepeatedField, "chunking_strategy", {"chunking_strategy": ["auto", "auto"]}),
        (InvalidValue, "vad_filter", {"chunking_strategy": "auto", "vad_filter": "false"}),
        (InvalidValue, "languages", {"languages": ["en", "klingon"]}),
        (InvalidValue, "languages", {"language": "fr", "languages": ["en", "de"]}),
        (InvalidValue, "batch_size", {"batch_size": "0"}),
        (InvalidValue, "batch_size", {"batch_size": "65"}),
        (InvalidValue, "temperature", {"temperature": "1.01"}),
        (InvalidValue, "temperature", {"temperature": "inf"}),
        (InvalidValue, "temperature", {"temperature": "0_1"}),
        (InvalidValue, "prompt", {"prompt": "so it ends.<|endoftext|>"}),
        (InvalidValue, "hotwords", {"hotwords": "<|0.00|>"}),
        (InvalidValue, "keywords", {"keywords": ["Dashwood", "<|en|>"]}),
        (InvalidValue, "stream", {"stream": "yes"}),
        (InvalidValue, "timestamp_granularities", {"timestamp_granularities": "word"}),
    ],
)
def test_field_that_cannot_be_honoured_is_refused_by_its_name(error, param, fields):
    with pytest.raises(FieldError) as caught:
        read(**fields)
    assert (type(caught.value), caught.value.param) == (error, param)
    assert repr(param) in caught.value.message
    assert ("Accepted: " in caught.value.message) == (error in {InvalidValue, UnknownField})


def test_meeting_applications_name_a_language_and_a_model_and_nothing_else():
    request = meeting_request(Form({"language": ["en"], "model": ["m"]}, None))
    assert (request.model, request.options) == ("m", Options(language="en"))
    with pytest.raises(UnknownField, match="Accepted: file, language, model"):
        meeting_request(Form({"prompt": ["hello"]}, None))
