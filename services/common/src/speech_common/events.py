"""A job as server-sent events, the way OpenAI's API streams a transcript.

Owns what goes over the wire, as bytes; who sends them, and to whom, is others' business. Deltas are cut so that, joined,
they are the transcript's text: white space goes out with the word that follows it.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import suppress

from speech_common.formats import ResponseFormat, render
from speech_common.job import Job
from speech_common.replies import body_for
from speech_common.transcript import Transcript

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


async def events(job: Job, ping_every_s: float = PING_EVERY_S) -> AsyncGenerator[bytes, None]:
    """Tell what the job says, from its first word, until it ends. May be followed by many, at any time."""
    unsaid = Unsaid()
    told = 0
    while True:
        while told < len(job.segments):
            told += 1
            if delta := unsaid.next(job.segments[told - 1].text):
                yield _event({"type": "transcript.text.delta", "delta": delta})
        if job.has_ended:
            break
        try:
            async with asyncio.timeout(ping_every_s):
                await job.changed()
        except TimeoutError:
            yield _PING
    if job.transcript is not None:
        yield _event({"type": "transcript.text.done", **_body(job.transcript)})
        yield _DONE
    elif job.error is not None:
        yield _event(body_for(job.error))


class Unsaid:
    """The white space that waits for a word."""

    def __init__(self) -> None:
        self._space = ""
        self._has_begun = False

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


def _body(transcript: Transcript) -> dict[str, object]:
    """Return `text` and `usage`, as the answer that is not streamed has them."""
    body: dict[str, object] = json.loads(render(transcript, ResponseFormat.JSON).body)
    return body


def _event(data: dict[str, object]) -> bytes:
    # ASCII: clients in Python split lines at U+2028 and its like too.
    return b"data: " + json.dumps(data).encode() + b"\n\n"
