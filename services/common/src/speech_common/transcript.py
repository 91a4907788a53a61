"""The transcript as data. Owns the types; imports nothing of ours. Times are seconds from the start of the audio."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word. `word` may carry the leading space of its tokens. `speaker` None is nobody in particular."""

    word: str
    start: float
    end: float
    probability: float = 1.0
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech with the decoder's own measures of it.

    `text` keeps the decoder's leading space, so that the segments' texts joined are the transcript's text.
    """

    id: int
    start: float
    end: float
    text: str
    seek: int = 0
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    words: tuple[Word, ...] = ()
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said. `language` is the ISO 639-1 code of `text`, `task` is `transcribe` or `translate`.

    `alignment` is the model that the words were laid on the audio with, None where there was none.
    """

    task: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...]
    alignment: str | None = None

    @property
    def text(self) -> str:
        """Return the whole text without surrounding white space."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def words(self) -> tuple[Word, ...]:
        """Return the words of all segments; empty where none were asked for."""
        return tuple(word for segment in self.segments for word in segment.words)


class Rising:
    """Times that are never before what was said last: a decoder's may run backwards."""

    def __init__(self) -> None:
        self._until_s = 0.0

    def risen(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return from when to when something is said after all that came before, rounded to ms."""
        start_s = max(start_s, self._until_s)
        self._until_s = max(end_s, start_s)
        return round(start_s, 3), round(self._until_s, 3)
