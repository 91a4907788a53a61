"""A job as server-sent events, the way OpenAI's API streams a transcript.

Owns what goes over the wire, as bytes; who sends them, and to whom, is others' business. Deltas are cut so that, joined,
they are the transcript's text: white space goes out with the word that follows it.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress

from speech_common.formats import ResponseFormat, SpeakerNames, diarized_segment, render
from speech_common.job import Job
from speech_common.replies import body_for
from speech_common.transcript import Segment, Transcript

PING_EVERY_S = 15.0
"""How long nothing goes over the wire: proxies and load balancers cut what is silent for 30 s and more."""
_PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"


async def until_begun(job: Job, within_s: float = PING_EVERY_S) -> None:
    """Wait until something was said, but no longer than `within_s`.

    Raises the job's error where it failed before that, so that it can still be told as an HTTP status.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not (job.segments or job.has_ended):
                await job.changed()
    if job.error is not None and not job.segments:
        raise job.error.with_traceback(None)


async def events(
    job: Job, ping_every_s: float = PING_EVERY_S, *, is_diarized: bool = False
) -> AsyncGenerator[bytes, None]:
    """Tell what the job says, from its first word, until it ends. May be followed by many, at any time.

    `is_diarized` tells segments with their speakers too, and the deltas are the text of diarized_json.
    """
    teller = _Diarized() if is_diarized else _Plain()
    told = 0
    while True:
        while told < len(job.segments):
            told += 1
            for event in teller.told(job.segments[told - 1]):
                yield _event(event)
        if job.has_ended:
            break
        try:
            async with asyncio.timeout(ping_every_s):
                await job.changed()
        except TimeoutError:
            yield _PING
    if job.transcript is not None:
        yield _event({"type": "transcript.text.done", **_body(job.transcript, is_diarized=is_diarized)})
        yield _DONE
    elif job.error is not None:
        yield _event(body_for(job.error))


class Unsaid:
    """The white space that waits for a word."""

    def __init__(self) -> None:
        self._space = ""
        self._has_begun = False

    def begin_line(self) -> None:
        """Put what follows on a line of its own."""
        self._space = "\n"

    def next(self, text: str) -> str:
        """Return what can go out now that `text` follows: no space at the very beginning, none at the end."""
        whole = self._space + text
        delta = whole.rstrip()
        if not delta:
            self._space = whole
            return ""
        self._space = whole[len(delta) :]
        if not self._has_begun:
            self._has_begun = True
            return delta.lstrip()
        return delta


class _Plain:
    """Segments as deltas of the text."""

    def __init__(self) -> None:
        self._unsaid = Unsaid()

    def told(self, segment: Segment) -> Iterator[dict[str, object]]:
        if delta := self._unsaid.next(segment.text):
            yield {"type": "transcript.text.delta", "delta": delta}


class _Diarized:
    """Segments as deltas of the text that names speakers, and with their own event each."""

    def __init__(self) -> None:
        self._unsaid = Unsaid()
        self._names = SpeakerNames()
        self._speaker: str | None = ""  # nobody is called that

    def told(self, segment: Segment) -> Iterator[dict[str, object]]:
        speaker, text = self._names[segment.speaker], segment.text
        if segment.speaker != self._speaker:
            self._speaker = segment.speaker
            self._unsaid.begin_line()
            text = f"{speaker}: {text.lstrip()}"
        if delta := self._unsaid.next(text):
            yield {"type": "transcript.text.delta", "delta": delta}
        yield diarized_segment(segment, speaker)


def _body(transcript: Transcript, *, is_diarized: bool) -> dict[str, object]:
    """Return `text` and `usage`, as the answer that is not streamed has them."""
    response_format = ResponseFormat.DIARIZED_JSON if is_diarized else ResponseFormat.JSON
    body: dict[str, object] = json.loads(render(transcript, response_format).body)
    return {name: body[name] for name in ("text", "usage")}


def _event(data: dict[str, object]) -> bytes:
    # ASCII: clients in Python split lines at U+2028 and its like too.
    return b"data: " + json.dumps(data).encode() + b"\n\n"
