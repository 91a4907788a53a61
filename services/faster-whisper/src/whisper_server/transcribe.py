"""From pieces of audio to segments: window by window, or several windows at a time.

Owns what is decoded next, and what is done about a text that looks wrong. Knows no files and no requests.

Window by window is the library's own way: where a window ends short of its audio, the next one begins there, and what
was said goes on as the prompt. Several windows at a time (a batch) take the same work in fewer, larger steps: each
weight is read once for all of them. There each window stands alone and ends in a silence (after a prompt that is not
from right before it, whisper-tiny leaves out what sounds like the prompt); one whose text looks wrong is looked at
again, in smaller parts or window by window.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from itertools import takewhile

import faster_whisper.transcribe
from speech_common.ahead import in_order
from speech_common.job import Progress
from speech_common.models.batches import groups
from speech_common.sound.reading import with_a_voice
from speech_common.sound.voice import FRAME_S
from speech_common.sound.windows import Held, Piece, Stretch
from speech_common.transcript import Rising, Segment, Word

from whisper_server.decoder import BeginsLater, Chunk, Decoder
from whisper_server.guard import IMPRECISION_S, Doubt, Measures, doubt, is_invented, unheard_from
from whisper_server.model import Model
from whisper_server.options import Options

# What loops at one cut seldom does at another; and what is said over and over is told from a loop in little of it.
_SMALLER_HELPS = (Doubt.REPETITION, Doubt.CUT_SHORT)
# A text that only came about above this one is no prompt for the next, as OpenAI's own code has it.
_PROMPT_TEMPERATURE = 0.5
# Window by window, so much is in memory at once, and is heard before the first window is decoded.
_STRETCH_S = 60.0


class Transcriber:
    """One recording's way through a model, stretch by stretch. For one thread; make a new one for each recording."""

    def __init__(self, model: Model, options: Options, language: str, progress: Progress) -> None:
        self._model = model
        self._decoder = Decoder(model, options, language, progress.check)
        self._progress = progress
        self._count = 0
        self._times = Rising()
        self.doubts: Counter[str] = Counter()
        """Why and how often chunks were decoded again, and how many segments nobody spoke."""

    def sequential(self, pieces: Iterable[Piece]) -> Iterator[Segment]:
        """Decode a recording window by window, each beginning where the library has it begin."""
        said = self._decoder.prompt()
        held = Held(pieces)
        longest = round(_STRETCH_S / FRAME_S)
        while frames := held.read(longest + 1):
            stretch = held.first(min(frames, longest))
            if frames <= longest:
                yield from self._until(stretch.duration_s, stretch, said)
                self._progress.heard(stretch.end_s)
                return
            # A window that begins later may lack its end: it is left for the next stretch.
            last_s = stretch.duration_s - self._model.feature_extractor.chunk_length
            reached_s = yield from self._until(last_s, stretch, said)
            held.drop(round(reached_s / FRAME_S))
            self._progress.heard(stretch.recorded(reached_s, reached_s)[0])

    def _until(self, last_s: float, stretch: Stretch, said: list[int]) -> Generator[Segment, None, float]:
        """Decode those windows of a stretch that begin until `last_s`, and return when the next one does."""
        self._progress.check()
        if not stretch.may_speak():
            return last_s
        try:
            yield from self._said(self._decoder.windows(stretch, said, last_s), stretch, said)
        except BeginsLater as window:
            return window.begin_s
        return stretch.duration_s

    def batched(self, stretches: Iterable[Stretch], size: int) -> Iterator[Segment]:
        """Decode stretches of at most 30 s each, up to `size` at a time; those without any voice are left out."""
        streams = self._model.streams
        batches = groups(with_a_voice(stretches, self._progress), max(1, size // streams))
        calls = (partial(list[Chunk], self._decoder.at_once(group)) for group in batches)
        for chunks in in_order(calls, streams):
            for chunk in chunks:
                yield from self._settled(chunk)
                self._progress.heard(chunk.stretch.end_s)

    def _settled(self, chunk: Chunk) -> Iterator[Segment]:
        """Take a chunk's text as it is, or decode again what is doubtful of it."""
        cause = doubt(chunk.measures, chunk.spans, chunk.stretch)
        if cause is None:
            yield from self._said(chunk.parts, chunk.stretch, [])
            return
        self.doubts[cause] += 1
        if cause is Doubt.UNHEARD and (from_s := unheard_from(chunk.spans, chunk.stretch)):
            yield from self._rest(chunk, from_s)
            return
        halves = chunk.stretch.halves()
        if cause in _SMALLER_HELPS and len(halves) > 1:
            for half in filter(Stretch.may_speak, halves):
                for part in self._decoder.at_once((half,)):
                    yield from self._settled(part)
        else:
            said = self._decoder.prompt()
            for half in halves:
                yield from self._again(half, said)

    def _rest(self, chunk: Chunk, from_s: float) -> Iterator[Segment]:
        """Keep the words of a chunk until the first speech without any, and decode what follows, as the library seeks on."""
        said = self._decoder.prompt()
        ends = zip(chunk.parts, chunk.spans, strict=True)
        yield from self._said([part for part, (_, end_s) in ends if end_s <= from_s], chunk.stretch, said)
        yield from self._again(chunk.stretch.since(from_s, IMPRECISION_S), said)

    def _again(self, stretch: Stretch, said: list[int]) -> Iterator[Segment]:
        """Decode window by window, as long as there is speech without words."""
        parts = takewhile(self._is_needed_in(stretch), self._decoder.windows(stretch, said))
        yield from self._said(parts, stretch, said)

    def _is_needed_in(self, stretch: Stretch) -> Callable[[faster_whisper.transcribe.Segment], bool]:
        """Tell of parts whether there was speech without words when their window began: a decoder loops without."""

        def is_needed(part: faster_whisper.transcribe.Segment) -> bool:
            begun_s = part.seek / self._model.frames_per_second
            return not part.seek or unheard_from([(0.0, begun_s)], stretch) is not None

        return is_needed

    def _said(
        self, parts: Iterable[faster_whisper.transcribe.Segment], stretch: Stretch, said: list[int]
    ) -> Iterator[Segment]:
        """Pass on what was spoken of the parts of a stretch, and add its tokens to those said before."""
        for part in parts:
            if not self._is_spoken(part, stretch):
                continue
            if part.temperature > _PROMPT_TEMPERATURE:
                said.clear()
            else:
                said += part.tokens
                del said[: -self._model.max_length]
            yield self._segment(part, stretch)

    def _is_spoken(self, part: faster_whisper.transcribe.Segment, stretch: Stretch) -> bool:
        measures = Measures(part.avg_logprob, part.compression_ratio, part.no_speech_prob)
        if not is_invented(part.text, measures, part.start, part.end, stretch):
            return True
        self.doubts["invented"] += 1
        return False

    def _segment(self, part: faster_whisper.transcribe.Segment, stretch: Stretch) -> Segment:
        """Copy a segment of the library, numbered from 0 as OpenAI does, its times the recording's own and rising."""
        words = tuple(self._word(word, stretch) for word in part.words or ())
        if words:
            start_s, end_s = words[0].start, words[-1].end
        else:
            start_s, end_s = self._times.risen(*stretch.recorded(part.start, part.end, IMPRECISION_S))
        number, self._count = self._count, self._count + 1
        return Segment(
            id=number,
            start=start_s,
            end=end_s,
            text=part.text,
            seek=round(stretch.start_s * self._model.frames_per_second) + part.seek,
            tokens=tuple(part.tokens),
            temperature=part.temperature or 0.0,
            avg_logprob=part.avg_logprob,
            compression_ratio=part.compression_ratio,
            no_speech_prob=part.no_speech_prob,
            words=words,
        )

    def _word(self, word: faster_whisper.transcribe.Word, stretch: Stretch) -> Word:
        return Word(
            word.word, *self._times.risen(*stretch.recorded(word.start, word.end)), float(word.probability)
        )
