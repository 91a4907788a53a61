"""From stretches of audio to segments: window by window, or several windows at a time.

Owns the use of the library's decoder, and what is done about a text that looks wrong. Knows no files and no requests.

Window by window is the library's own way: where a window ends short of its audio, the next one begins there, and what
was said goes on as the prompt. Several windows at a time (a batch) take the same work in fewer, larger steps: each
weight is read once for all of them. There each window stands alone and ends in a silence (after a prompt that is not
from right before it, whisper-tiny leaves out what sounds like the prompt); one whose text looks wrong is looked at
again, window by window. The library's own batches drop what follows the last time stamp of a window, so they are not
used (faster-whisper 1.2.1).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise, takewhile
from typing import Any

import ctranslate2
import faster_whisper.transcribe
import numpy as np
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens
from numpy.typing import NDArray
from speech_common.job import Progress
from speech_common.transcript import Segment, Word

from whisper_server.ahead import in_order
from whisper_server.guard import IMPRECISION_S, Doubt, Measures, doubt, is_invented, unheard_from
from whisper_server.model import Model
from whisper_server.options import Options
from whisper_server.windows import Stretch

# Where no temperature is asked for, a decode that looks wrong is tried again hotter, as OpenAI's own code does.
_FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# A text that only came about above this one is no prompt for the next, as OpenAI's own code has it.
_PROMPT_TEMPERATURE = 0.5
_SAMPLES_OF = 5
_FIRST_TIME_STAMP_WITHIN_S = 1.0
# Fewer frames of a spectrogram are none to the decoder, which cannot find words in them.
_FEWEST_FRAMES = 2
_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What a stretch became in a batch: parts of text, and when they are by their time stamps.

    The parts' own times are those of their words, where these were asked for: none for doubts, since long words are cut.
    """

    stretch: Stretch
    measures: Measures
    spans: list[tuple[float, float]]
    parts: list[faster_whisper.transcribe.Segment]


class Transcriber:
    """One recording's way through a model, stretch by stretch. For one thread; make a new one for each recording."""

    def __init__(self, model: Model, options: Options, language: str, progress: Progress) -> None:
        self._model = model
        self._options = options
        self._language = language
        self._progress = progress
        self._tokenizer = Tokenizer(
            model.hf_tokenizer, model.model.is_multilingual, task=options.task, language=language
        )
        self._count = 0
        self._said_until_s = 0.0
        self.doubts: Counter[str] = Counter()
        """Why and how often chunks were decoded again, and how many segments nobody spoke."""

    def sequential(self, stretches: Iterable[Stretch]) -> Iterator[Segment]:
        """Decode stretch after stretch, window by window."""
        said = self._prompt()
        for stretch in self._with_a_voice(stretches):
            yield from self._said(self._windows(stretch, said), stretch, said)
            self._progress.heard(stretch.end_s)

    def batched(self, stretches: Iterable[Stretch], size: int) -> Iterator[Segment]:
        """Decode stretches of at most 30 s each, up to `size` at a time; those without any voice are left out."""
        streams = self._model.streams
        groups = _groups(self._with_a_voice(stretches), max(1, size // streams))
        calls = (partial(list[_Chunk], self._decoded(group)) for group in groups)
        for chunks in in_order(calls, streams):
            for chunk in chunks:
                cause = doubt(chunk.measures, chunk.spans, chunk.stretch)
                if cause is None:
                    yield from self._said(chunk.parts, chunk.stretch, [])
                else:
                    self.doubts[cause] += 1
                    yield from self._again(chunk, cause)
                self._progress.heard(chunk.stretch.end_s)

    def _again(self, chunk: _Chunk, cause: Doubt) -> Iterator[Segment]:
        """Decode window by window what is doubtful of a chunk.

        Of speech without words, that is what follows the words before it, as where the library seeks on. Else it is
        all, cut in two: what loops at one cut seldom does at another.
        """
        said = self._prompt()
        rest = chunk.stretch.halves()
        from_s = unheard_from(chunk.spans, chunk.stretch) if cause is Doubt.UNHEARD else None
        if from_s:
            ends = zip(chunk.parts, chunk.spans, strict=True)
            yield from self._said([part for part, (_, end_s) in ends if end_s <= from_s], chunk.stretch, said)
            rest = (chunk.stretch.since(from_s, IMPRECISION_S),)
        for stretch in rest:
            parts = takewhile(self._is_needed_in(stretch), self._windows(stretch, said))
            yield from self._said(parts, stretch, said)

    def _is_needed_in(self, stretch: Stretch) -> Callable[[faster_whisper.transcribe.Segment], bool]:
        """Tell of parts whether there was speech without words when their window began: a decoder loops without."""

        def is_needed(part: faster_whisper.transcribe.Segment) -> bool:
            begun_s = part.seek / self._model.frames_per_second
            return not part.seek or unheard_from([(0.0, begun_s)], stretch) is not None

        return is_needed

    def _with_a_voice(self, stretches: Iterable[Stretch]) -> Iterator[Stretch]:
        for stretch in stretches:
            self._progress.check()
            if stretch.may_speak():
                yield stretch

    def _prompt(self) -> list[int]:
        prompt = self._options.prompt
        return self._tokenizer.encode(" " + prompt.strip()) if prompt else []

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

    def _windows(self, stretch: Stretch, said: list[int]) -> Iterator[faster_whisper.transcribe.Segment]:
        """Decode a stretch the library's way, with its times mended."""
        options = self._options
        with self._model.checked_by(self._progress.check):
            parts, _ = self._model.transcribe(
                stretch.samples,
                language=self._language,
                task=options.task,
                initial_prompt=said[-self._model.max_length :] or None,
                hotwords=options.hotwords,
                temperature=options.temperature or list(_FALLBACK_TEMPERATURES),
                beam_size=options.beam_size,
                word_timestamps=options.word_timestamps,
            )
            for part in parts:
                if part.words:
                    yield part
                    continue
                # Where its only time stamp is the one it begins with, the library takes that for its end.
                window_s = part.seek / self._model.frames_per_second
                longest_s = min(self._model.feature_extractor.chunk_length, stretch.duration_s - window_s)
                start_s, end_s = self._span(part.tokens, longest_s)
                yield replace(part, start=window_s + start_s, end=window_s + end_s)

    def _is_spoken(self, part: faster_whisper.transcribe.Segment, stretch: Stretch) -> bool:
        measures = Measures(part.avg_logprob, part.compression_ratio, part.no_speech_prob)
        if not is_invented(part.text, measures, part.start, part.end, stretch):
            return True
        self.doubts["invented"] += 1
        return False

    def _decoded(self, group: tuple[Stretch, ...]) -> Iterator[_Chunk]:
        """Decode stretches at once, each on its own. Several threads may, of one recording too."""
        model, tokenizer, options = self._model, self._tokenizer, self._options
        features = [model.feature_extractor(stretch.samples)[..., :-1] for stretch in group]
        frames = [one.shape[-1] for one in features]
        encoded = self._encoded([pad_or_trim(one) for one in features])
        prompt = model.get_prompt(tokenizer, self._prompt(), hotwords=options.hotwords)
        results = model.model.generate(
            ctranslate2.StorageView.from_array(encoded),
            [prompt] * len(group),
            max_length=model.max_length,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
            max_initial_timestamp_index=round(_FIRST_TIME_STAMP_WITHIN_S / model.time_precision),
            **_search(options),
        )
        # The decoder writes at most half of what it has room for, and then no end (CTranslate2 4.8).
        most = min(model.max_length // 2, model.max_length - len(prompt))
        for number, (stretch, result) in enumerate(zip(group, results, strict=True)):
            tokens = result.sequences_ids[0]
            measures = Measures(
                avg_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1),
                compression_ratio=get_compression_ratio(tokenizer.decode(tokens).strip()),
                no_speech_prob=result.no_speech_prob,
                is_cut_short=len(tokens) >= most,
            )
            parts = list(self._parts(tokens, frames[number] * model.feature_extractor.time_per_frame))
            spans = [(part["start"], part["end"]) for part in parts]
            if options.word_timestamps:
                # Each window for itself: the library takes them for one after the other, and all logits into memory.
                heard = ctranslate2.StorageView.from_array(encoded[number : number + 1])
                fitting = max(frames[number], _FEWEST_FRAMES)
                model.add_word_timestamps([parts], tokenizer, heard, fitting, _PREPENDED, _APPENDED, 0.0)
            yield _Chunk(stretch, measures, spans, [self._text(part, measures) for part in parts])

    def _encoded(self, windows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what the decoder hears, `[windows, frames, width]`."""
        # One by one takes no longer on the CPU, and its attention a fraction of the memory: 4 windows of whisper-base
        # at once took 0.5 GB.
        together = [np.stack(windows)] if self._model.model.device == "cuda" else windows
        with self._model.checked_by(self._progress.check):
            views = [
                # In a type that numpy has; the decoder turns it into its own again.
                self._model.encode(one).to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32)
                for one in together
            ]
        return np.concatenate([np.array(view) for view in views])

    def _parts(self, tokens: list[int], duration_s: float) -> Iterator[dict[str, Any]]:
        """Cut a window's tokens where two time stamps meet, as the library does, and keep what follows the last."""
        begin = self._tokenizer.timestamp_begin
        meetings = (at for at in range(1, len(tokens)) if tokens[at - 1] >= begin <= tokens[at])
        for part in (tokens[first:last] for first, last in pairwise([0, *meetings, len(tokens)])):
            text = self._tokenizer.decode(part)
            if text.strip():
                start_s, end_s = self._span(part, duration_s)
                if start_s != end_s:  # as the library does
                    yield {"seek": 0, "start": start_s, "end": end_s, "tokens": part, "text": text}

    def _span(self, tokens: list[int], duration_s: float) -> tuple[float, float]:
        """Return from when to when a part is in its window; as far as that goes where it has no time stamp."""
        first_s, last_s = (
            (token - self._tokenizer.timestamp_begin) * self._model.time_precision
            for token in (tokens[0], tokens[-1])
        )
        return max(first_s, 0.0), last_s if last_s >= 0.0 and len(tokens) > 1 else duration_s

    def _text(self, part: dict[str, Any], measures: Measures) -> faster_whisper.transcribe.Segment:
        return faster_whisper.transcribe.Segment(
            id=0,
            seek=0,
            start=part["start"],
            end=part["end"],
            text=part["text"],
            tokens=part["tokens"],
            avg_logprob=measures.avg_logprob,
            compression_ratio=measures.compression_ratio,
            no_speech_prob=measures.no_speech_prob,
            words=[faster_whisper.transcribe.Word(**word) for word in part.get("words", ())],
            temperature=self._options.temperature or 0.0,
        )

    def _segment(self, part: faster_whisper.transcribe.Segment, stretch: Stretch) -> Segment:
        """Copy a segment of the library, numbered from 0 as OpenAI does, its times the recording's own and rising."""
        words = tuple(self._word(word, stretch) for word in part.words or ())
        if words:
            start_s, end_s = words[0].start, words[-1].end
        else:
            start_s, end_s = self._rising(*stretch.recorded(part.start, part.end, IMPRECISION_S))
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
            word.word, *self._rising(*stretch.recorded(word.start, word.end)), float(word.probability)
        )

    def _rising(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Return times that are not before what was said last."""
        start_s = max(start_s, self._said_until_s)
        self._said_until_s = max(end_s, start_s)
        return round(start_s, 3), round(self._said_until_s, 3)


def _groups(stretches: Iterator[Stretch], most: int) -> Iterator[tuple[Stretch, ...]]:
    """Yield one, then two, then four together, up to `most`: what the first says is not to wait for all of them."""
    count = 1
    while group := tuple(islice(stretches, count)):
        yield group
        count = min(2 * count, most)


def _search(options: Options) -> dict[str, object]:
    """Return how to look for the most likely words: as the library does it for one window."""
    if options.temperature:
        return {
            "beam_size": 1,
            "num_hypotheses": _SAMPLES_OF,
            "sampling_topk": 0,
            "sampling_temperature": options.temperature,
        }
    return {"beam_size": options.beam_size, "patience": 1.0}
