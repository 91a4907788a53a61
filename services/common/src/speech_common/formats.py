"""Render a transcript in the formats of OpenAI's API.

Owns content types, timestamps and escaping; knows `transcript.py` and `languages.py`, no web framework.
"""

import json
import re
from collections.abc import Collection
from enum import StrEnum
from typing import NamedTuple

from speech_common.languages import language_name
from speech_common.transcript import Segment, Transcript, Word


class ResponseFormat(StrEnum):
    """The `response_format`s rendered here."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    VERBOSE_JSON = "verbose_json"


class Granularity(StrEnum):
    """The `timestamp_granularities` of verbose_json."""

    SEGMENT = "segment"
    WORD = "word"


class Rendered(NamedTuple):
    """A body and its content type."""

    body: bytes
    content_type: str


# The openai SDK parses only application/json as JSON and hands out anything else as a plain string.
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_VTT = "text/vtt; charset=utf-8"


def render(
    transcript: Transcript,
    response_format: ResponseFormat,
    granularities: Collection[Granularity] = (Granularity.SEGMENT,),
) -> Rendered:
    """Render `transcript`. `granularities` choose the lists of verbose_json and mean nothing elsewhere."""
    match response_format:
        case ResponseFormat.JSON:
            return _as_json({"text": transcript.text, "usage": _usage(transcript)})
        case ResponseFormat.VERBOSE_JSON:
            return _as_json(verbose_body(transcript, granularities))
        case ResponseFormat.TEXT:
            return Rendered(f"{transcript.text}\n".encode(), _TEXT)
        case ResponseFormat.SRT:
            return Rendered(srt(transcript.segments).encode(), _TEXT)
        case ResponseFormat.VTT:
            return Rendered(vtt(transcript.segments).encode(), _VTT)


def verbose_body(transcript: Transcript, granularities: Collection[Granularity]) -> dict[str, object]:
    """Return the object of verbose_json: `segments` and `words` only where asked for."""
    body: dict[str, object] = {
        "task": transcript.task,
        "language": language_name(transcript.language),
        "duration": round(transcript.duration_s, 3),
        "text": transcript.text,
    }
    if Granularity.SEGMENT in granularities:
        body["segments"] = [_segment_body(segment) for segment in transcript.segments]
    if Granularity.WORD in granularities:
        body["words"] = [_word_body(word) for word in transcript.words]
    body["usage"] = _usage(transcript)
    return body


def srt(segments: Collection[Segment]) -> str:
    """Return SubRip: numbered cues, comma before the milliseconds."""
    cues = (
        f"{number}\n{_timestamp(segment.start, ',')} --> {_timestamp(segment.end, ',')}\n{text}\n\n"
        for number, (segment, text) in enumerate(_cues(segments), 1)
        # An arrow inside the text would be read as the next cue's times.
        for text in [text.replace("-->", "->")]
    )
    return "".join(cues)


def vtt(segments: Collection[Segment]) -> str:
    """Return WebVTT; `&`, `<` and `>` are escaped as the W3C format demands of cue text."""
    cues = (
        f"{_timestamp(segment.start, '.')} --> {_timestamp(segment.end, '.')}\n{_vtt_escaped(text)}\n\n"
        for segment, text in _cues(segments)
    )
    return "WEBVTT\n\n" + "".join(cues)


def _cues(segments: Collection[Segment]) -> list[tuple[Segment, str]]:
    """Pair segments with their text on one line: an empty line would end a cue, and an empty cue says nothing."""
    pairs = ((segment, re.sub(r"\s+", " ", segment.text).strip()) for segment in segments)
    return [(segment, text) for segment, text in pairs if text]


def _vtt_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _timestamp(seconds: float, decimal_mark: str) -> str:
    """Return hh:mm:ss and milliseconds, rounded once so that 59.9996 s becomes a minute."""
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{decimal_mark}{milliseconds:03d}"


def _segment_body(segment: Segment) -> dict[str, object]:
    return {
        "id": segment.id,
        "seek": segment.seek,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _word_body(word: Word) -> dict[str, object]:
    return {"word": word.word.strip(), "start": word.start, "end": word.end}


def _usage(transcript: Transcript) -> dict[str, object]:
    return {"type": "duration", "seconds": round(transcript.duration_s, 3)}


def _as_json(body: dict[str, object]) -> Rendered:
    return Rendered(json.dumps(body, ensure_ascii=False).encode(), _JSON)
