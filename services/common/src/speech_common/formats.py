"""Render a transcript in the formats of OpenAI's API and of whisperx.

Owns content types, timestamps and escaping; knows `transcript.py`, `subtitles.py` and `languages.py`, no web
framework.
"""

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from enum import StrEnum
from itertools import groupby
from typing import NamedTuple

from speech_common.languages import DetectedLanguage, language_name
from speech_common.subtitles import Cue, cues
from speech_common.transcript import Segment, Transcript, Word


class ResponseFormat(StrEnum):
    """The formats rendered here: OpenAI's, and two of whisperx. Each service has its own choice of them."""

    JSON = "json"
    TEXT = "text"
    SRT = "srt"
    VTT = "vtt"
    VERBOSE_JSON = "verbose_json"
    DIARIZED_JSON = "diarized_json"
    WHISPERX_JSON = "whisperx_json"
    TSV = "tsv"


class Granularity(StrEnum):
    """The `timestamp_granularities` of verbose_json."""

    SEGMENT = "segment"
    WORD = "word"


UNKNOWN_SPEAKER = "SPEAKER_"
"""How the name begins of somebody whose own is not known; a number follows."""


class Rendered(NamedTuple):
    """A body and its content type."""

    body: bytes
    content_type: str


_ARROW = re.compile("-{2,}>")
# The openai SDK parses only application/json as JSON and hands out anything else as a plain string.
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"
_VTT = "text/vtt; charset=utf-8"
_TSV = "text/tab-separated-values; charset=utf-8"


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
        case ResponseFormat.DIARIZED_JSON:
            return _as_json(_diarized_body(transcript))
        case ResponseFormat.WHISPERX_JSON:
            return _as_json(_whisperx_body(transcript))
        case ResponseFormat.TSV:
            return Rendered(tsv(transcript.segments).encode(), _TSV)
        case ResponseFormat.TEXT:
            return Rendered(f"{_told(transcript)}\n".encode(), _TEXT)
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


def srt(segments: Iterable[Segment]) -> str:
    """Return SubRip: numbered cues, comma before the milliseconds."""
    # An arrow inside the text would be read as the next cue's times.
    return "".join(
        f"{number}\n{_times(cue, ',')}\n{_ARROW.sub('->', _text(cue))}\n\n"
        for number, cue in enumerate(cues(map(_named, segments)), 1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """Return WebVTT; `&`, `<` and `>` are escaped as the W3C format demands of cue text."""
    return "WEBVTT\n\n" + "".join(
        f"{_times(cue, '.')}\n{_vtt_escaped(_text(cue))}\n\n" for cue in cues(map(_named, segments))
    )


def tsv(segments: Iterable[Segment]) -> str:
    """Return a table as whisperx writes it: start and end in ms, and the text, divided by tabs."""
    rows = (
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t{' '.join(_named(segment).text.split())}\n"
        for segment in segments
    )
    return "start\tend\ttext\n" + "".join(rows)


class SpeakerNames:
    """What diarized_json calls the speakers, in the order they are asked for: A, B … unless their names were known."""

    def __init__(self) -> None:
        self._unknown: dict[str, str] = {}

    def __getitem__(self, speaker: str | None) -> str:
        if speaker is not None and not speaker.startswith(UNKNOWN_SPEAKER):
            return speaker
        return self._unknown.setdefault(speaker or "", _letters(len(self._unknown)))


def _letters(number: int) -> str:
    """Return A to Z, AA, AB …, as a spreadsheet names its columns; 0 is A."""
    rest, last = divmod(number, 26)
    return (_letters(rest - 1) if rest else "") + chr(ord("A") + last)


def _told(transcript: Transcript) -> str:
    """Return the text; where speakers are told apart, a line for each turn that begins with its name in brackets."""
    if all(segment.speaker is None for segment in transcript.segments):
        return transcript.text
    return "\n".join(
        text if speaker is None else f"[{speaker}]: {text}" for speaker, text in _turns(transcript.segments)
    )


def _turns(segments: Iterable[Segment]) -> Iterator[tuple[str | None, str]]:
    """Yield who speaks, and all that he says before another does."""
    for speaker, said in groupby(segments, key=lambda segment: segment.speaker):
        yield speaker, "".join(segment.text for segment in said).strip()


def _named(segment: Segment) -> Segment:
    """Return a segment whose text begins with its speaker, as whisperx writes it."""
    if segment.speaker is None:
        return segment
    prefix = f" [{segment.speaker}]: "
    words = segment.words
    if words:
        words = (replace(words[0], word=prefix + words[0].word.lstrip()), *words[1:])
    return replace(segment, text=prefix + segment.text.lstrip(), words=words)


def _times(cue: Cue, decimal_mark: str) -> str:
    return f"{_timestamp(cue.start_ms, decimal_mark)} --> {_timestamp(cue.end_ms, decimal_mark)}"


def _text(cue: Cue) -> str:
    return "\n".join(cue.lines)


def _vtt_escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _timestamp(milliseconds: int, decimal_mark: str) -> str:
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    whole, milliseconds = divmod(milliseconds, 1000)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{decimal_mark}{milliseconds:03d}"


def meeting_body(transcript: Transcript) -> dict[str, object]:
    """Return what meeting applications read from `POST /transcribe`: `language` is the code, segments are whole."""
    return {
        "text": transcript.text,
        "language": transcript.language,
        "segments": [_segment_body(segment) for segment in transcript.segments],
    }


def language_body(detected: DetectedLanguage) -> dict[str, object]:
    """Return the object of `POST /v1/audio/detect-language`; `duration` is the audio looked at, in seconds."""
    return {
        "language": detected.code,
        "language_name": language_name(detected.code),
        "probability": round(_finite(detected.probability), 4),
        "duration": round(detected.heard_s, 3),
    }


def _segment_body(segment: Segment) -> dict[str, object]:
    return {
        "id": segment.id,
        "seek": segment.seek,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": _finite(segment.avg_logprob),
        "compression_ratio": _finite(segment.compression_ratio),
        "no_speech_prob": _finite(segment.no_speech_prob),
    }


def _finite(measure: float) -> float:
    """Return 0 for what is no number: JSON has no NaN, and a client's parser would refuse the whole answer."""
    return measure if math.isfinite(measure) else 0.0


def _whisperx_body(transcript: Transcript) -> dict[str, object]:
    """Return what whisperx's own JSON has, with the whole text and how words were timed."""
    return {
        "text": transcript.text,
        "language": transcript.language,
        "duration": round(transcript.duration_s, 3),
        "alignment": transcript.alignment or "none",
        "segments": [_whisperx_segment(segment) for segment in transcript.segments],
    }


def _whisperx_segment(segment: Segment) -> dict[str, object]:
    return {
        "start": segment.start,
        "end": segment.end,
        "text": segment.text.strip(),
        **_speaker(segment.speaker),
        "words": [
            {
                "word": word.word.strip(),
                "start": word.start,
                "end": word.end,
                "score": round(_finite(word.probability), 3),
                **_speaker(word.speaker),
            }
            for word in segment.words
        ],
    }


def _speaker(speaker: str | None) -> dict[str, str]:
    return {} if speaker is None else {"speaker": speaker}


def _diarized_body(transcript: Transcript) -> dict[str, object]:
    names = SpeakerNames()
    segments = [diarized_segment(segment, names[segment.speaker]) for segment in transcript.segments]
    return {
        "task": transcript.task,
        "duration": round(transcript.duration_s, 3),
        "text": "\n".join(f"{names[speaker]}: {text}" for speaker, text in _turns(transcript.segments)),
        "segments": segments,
        "usage": _usage(transcript),
    }


def diarized_segment(segment: Segment, speaker: str) -> dict[str, object]:
    """Return a segment of diarized_json, which is also what a stream tells of it."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{segment.id + 1:03d}",
        "start": segment.start,
        "end": segment.end,
        "text": segment.text.strip(),
        "speaker": speaker,
    }


def _word_body(word: Word) -> dict[str, object]:
    return {"word": word.word.strip(), "start": word.start, "end": word.end}


def _usage(transcript: Transcript) -> dict[str, object]:
    return {"type": "duration", "seconds": round(transcript.duration_s, 3)}


def _as_json(body: dict[str, object]) -> Rendered:
    return Rendered(json.dumps(body, ensure_ascii=False).encode(), _JSON)
