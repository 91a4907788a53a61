"""Rendering, errors, languages and settings, without a server."""

import json
import re

import pytest
from speech_common import errors
from speech_common.environment import Environment, SettingError
from speech_common.formats import (
    Granularity,
    ResponseFormat,
    language_body,
    meeting_body,
    render,
    verbose_body,
)
from speech_common.languages import LANGUAGE_NAMES, DetectedLanguage, language_code, language_name
from speech_common.replies import REPLIES, reply_for
from speech_common.transcript import Segment, Transcript, Word


def transcript(*texts, start=0.0, end=1.0, language="fr", words=()):
    segments = tuple(
        Segment(id=number, start=start, end=end, text=text, words=tuple(words))
        for number, text in enumerate(texts)
    )
    return Transcript(task="transcribe", language=language, duration_s=1.5, segments=segments)


@pytest.mark.parametrize(
    ("seconds", "stamp"),
    [
        (0.0, "00:00:00.000"),
        (0.0004, "00:00:00.000"),
        (1.0015, "00:00:01.002"),
        (59.9996, "00:01:00.000"),
        (3599.9999, "01:00:00.000"),
        (36000.25, "10:00:00.250"),
        (360000.0, "100:00:00.000"),
    ],
)
def test_timestamps_carry_over(seconds, stamp):
    said = transcript(" Hi.", start=seconds, end=seconds + 1)
    assert f"\n{stamp} --> " in render(said, ResponseFormat.VTT).body.decode()
    assert f"\n{stamp.replace('.', ',')} --> " in render(said, ResponseFormat.SRT).body.decode()


def test_srt_numbers_its_cues_from_one_and_skips_empty_ones():
    said = Transcript(
        "transcribe",
        "en",
        2.0,
        (Segment(0, 0, 1, " One."), Segment(1, 1, 1, "  "), Segment(2, 1, 2, " Two.")),
    )
    body = render(said, ResponseFormat.SRT).body.decode()
    assert body == ("1\n00:00:00,000 --> 00:00:01,000\nOne.\n\n2\n00:00:01,000 --> 00:00:02,000\nTwo.\n\n")


def test_long_text_is_two_lines_in_both_formats():
    said = transcript(" Mr. Knightley seemed to be trying not to smile.")
    lines = "\nMr. Knightley seemed to\nbe trying not to smile.\n\n"
    assert render(said, ResponseFormat.SRT).body.decode().endswith(lines)
    assert render(said, ResponseFormat.VTT).body.decode().endswith(lines)


def test_text_cannot_break_out_of_its_cue():
    hostile = " a\n\n2\n00:00 --> 00:01 <b>&"
    vtt = render(transcript(hostile), ResponseFormat.VTT).body.decode()
    assert vtt == "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na 2 00:00 --&gt; 00:01 &lt;b&gt;&amp;\n\n"
    srt = render(transcript(hostile), ResponseFormat.SRT).body.decode()
    assert srt == "1\n00:00:00,000 --> 00:00:01,000\na 2 00:00 -> 00:01 <b>&\n\n"


@pytest.mark.parametrize(
    ("response_format", "body"),
    [
        (ResponseFormat.TEXT, b"\n"),
        (ResponseFormat.SRT, b""),
        (ResponseFormat.VTT, b"WEBVTT\n\n"),
        (ResponseFormat.JSON, b'{"text": "", "usage": {"type": "duration", "seconds": 1.5}}'),
    ],
)
def test_nothing_said_is_still_well_formed(response_format, body):
    assert body == render(transcript(), response_format).body


def test_json_keeps_letters_of_all_languages_as_they_are():
    rendered = render(transcript(" Ça va, 你好?"), ResponseFormat.JSON)
    assert rendered.content_type == "application/json"
    assert "Ça va, 你好?" in rendered.body.decode()


def test_only_json_is_called_json():
    types = {name: render(transcript(" x"), name).content_type for name in ResponseFormat}
    assert types == {
        ResponseFormat.JSON: "application/json",
        ResponseFormat.VERBOSE_JSON: "application/json",
        ResponseFormat.TEXT: "text/plain; charset=utf-8",
        ResponseFormat.SRT: "text/plain; charset=utf-8",
        ResponseFormat.VTT: "text/vtt; charset=utf-8",
        ResponseFormat.DIARIZED_JSON: "application/json",
        ResponseFormat.WHISPERX_JSON: "application/json",
        ResponseFormat.TSV: "text/tab-separated-values; charset=utf-8",
    }


def test_verbose_json_names_the_language_and_strips_words():
    said = transcript(" Bonjour", words=[Word(" Bonjour", 0.1, 0.9)])
    body = json.loads(render(said, ResponseFormat.VERBOSE_JSON, {Granularity.WORD}).body)
    assert body == {
        "task": "transcribe",
        "language": "french",
        "duration": 1.5,
        "text": "Bonjour",
        "words": [{"word": "Bonjour", "start": 0.1, "end": 0.9}],
        "usage": {"type": "duration", "seconds": 1.5},
    }


def test_measures_that_are_no_numbers_do_not_break_the_json():
    nan = float("nan")
    segment = Segment(0, 0, 1, " x", avg_logprob=nan, compression_ratio=float("inf"), no_speech_prob=nan)
    said = Transcript("transcribe", "en", 1.0, (segment,))

    def refuse(constant):
        raise AssertionError(constant)

    body = json.loads(render(said, ResponseFormat.VERBOSE_JSON).body, parse_constant=refuse)
    measures = ("avg_logprob", "compression_ratio", "no_speech_prob")
    assert [body["segments"][0][name] for name in measures] == [0, 0, 0]


def test_meeting_applications_get_the_code_of_the_language_and_whole_segments():
    body = meeting_body(transcript(" Bonjour"))
    assert (body["text"], body["language"]) == ("Bonjour", "fr")
    assert body["segments"] == verbose_body(transcript(" Bonjour"), {Granularity.SEGMENT})["segments"]


def test_detected_language_is_told_by_code_and_name():
    assert language_body(DetectedLanguage("yue", 0.98765, 30.00004)) == {
        "language": "yue",
        "language_name": "cantonese",
        "probability": 0.9877,
        "duration": 30.0,
    }


def test_every_language_of_whisper_has_a_lower_case_name():
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    assert set(_LANGUAGE_CODES) == set(LANGUAGE_NAMES)
    assert all(re.fullmatch("[a-z ]+", name) for name in LANGUAGE_NAMES.values())


@pytest.mark.parametrize(
    ("given", "code"), [("en", "en"), (" FR ", "fr"), ("jv", "jw"), ("english", None), ("", None)]
)
def test_language_codes_are_read_in_any_case(given, code):
    assert language_code(given) == code


def test_language_without_a_name_is_named_by_its_code():
    assert language_name("tlh") == "tlh"


def all_errors(cls=errors.SpeechError):
    yield cls
    for subclass in cls.__subclasses__():
        yield from all_errors(subclass)


def test_every_error_has_a_reply_of_its_own():
    bases = {errors.SpeechError, errors.FieldError}
    assert set(all_errors()) - bases == set(REPLIES)


def test_an_error_without_a_reply_takes_its_parents():
    class Noise(errors.UnreadableAudio):
        pass

    assert reply_for(Noise("hiss")) == REPLIES[errors.UnreadableAudio]


def test_messages_do_not_echo_long_values():
    assert len(str(errors.InvalidValue("language", "x" * 10_000, "en"))) < 200


@pytest.mark.parametrize(
    ("given", "size_bytes"), [("500MB", 500_000_000), ("4GiB", 4 << 30), ("1.5 kB", 1500), ("7", 7)]
)
def test_sizes_are_read(given, size_bytes):
    assert Environment({"SIZE": given}).size_bytes("SIZE", "1") == size_bytes


@pytest.mark.parametrize(("given", "duration_s"), [("90s", 90), ("1.5m", 90), ("50ms", 0.05), ("2", 2)])
def test_durations_are_read(given, duration_s):
    assert Environment({"WAIT": given}).duration_s("WAIT", "1") == pytest.approx(duration_s)


def test_empty_variable_counts_as_not_set():
    assert Environment({"SIZE": ""}).size_bytes("SIZE", "1kB") == 1000


@pytest.mark.parametrize("given", ["-1MB", "0", "1XB", "MB"])
def test_nonsense_sizes_are_refused(given):
    with pytest.raises(SettingError, match="500MB"):
        Environment({"SIZE": given}).size_bytes("SIZE", "1")
