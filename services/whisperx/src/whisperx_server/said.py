"""What was heard in a stretch of audio, as the engine's parts tell each other. Times are seconds from the stretch's start.

Imports nothing heavy.
"""

from dataclasses import dataclass

from speech_common.transcript import Word


@dataclass(frozen=True, slots=True)
class Heard:
    """The text of a stretch. `words` are timed by the decoder's attention; empty where nobody asked for them."""

    text: str
    avg_logprob: float
    words: tuple[Word, ...] = ()
    compression_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Sentence:
    """A part of that text with its words, each of which has the space before it."""

    text: str
    start_s: float
    end_s: float
    words: tuple[Word, ...]
