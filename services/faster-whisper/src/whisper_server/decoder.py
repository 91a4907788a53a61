"""Stretches of audio through the library's decoder: window by window, or several windows at once.

Owns the use of the library, and mends the times that it gives. Knows no files and no requests, and takes no text for
wrong. The library's own batches drop what follows the last time stamp of a window, so they are not used
(faster-whisper 1.2.1).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import ctranslate2
import faster_whisper.transcribe
import numpy as np
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_compression_ratio, get_suppressed_tokens
from numpy.typing import NDArray
from speech_common.models import memory
from speech_common.sound.windows import Stretch

from whisper_server.guard import Measures
from whisper_server.model import Model
from whisper_server.options import Options

# Where no temperature is asked for, a decode that looks wrong is tried again hotter, as OpenAI's own code does.
_FALLBACK_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SAMPLES_OF = 5
"""How many texts are drawn where a temperature is asked for; the likeliest of them is taken."""
_FIRST_TIME_STAMP_WITHIN_S = 1.0
_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


class BeginsLater(Exception):
    """The next window begins `begin_s` after the start of the stretch: later than it is to be decoded now."""

    def __init__(self, begin_s: float) -> None:
        super().__init__(f"the next window begins at {begin_s} s")
        self.begin_s = begin_s


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a stretch became in a batch: parts of text, and when they are by their time stamps.

    The parts' own times are those of their words, where these were asked for: none for doubts, since long words are cut.
    """

    stretch: Stretch
    measures: Measures
    spans: list[tuple[float, float]]
    parts: list[faster_whisper.transcribe.Segment]


class Decoder:
    """A model, and how one recording is decoded with it. `check` is called before every window."""

    def __init__(self, model: Model, options: Options, language: str, check: Callable[[], None]) -> None:
        self._model = model
        self._options = options
        self._language = language
        self._check = check
        self._tokenizer = Tokenizer(
            model.hf_tokenizer, model.model.is_multilingual, task=options.task, language=language
        )

    def prompt(self) -> list[int]:
        """Return the tokens of what the client says comes before the recording."""
        prompt = self._options.prompt
        return self._tokenizer.encode(" " + prompt.strip()) if prompt else []

    def windows(
        self, stretch: Stretch, said: list[int], last_s: float = math.inf
    ) -> Iterator[faster_whisper.transcribe.Segment]:
        """Decode a stretch the library's way, with its times mended.

        Raises BeginsLater in place of the first window that begins after `last_s`.
        """
        options = self._options

        def check(begin_s: float) -> None:
            self._check()
            if begin_s > last_s:
                raise BeginsLater(begin_s)

        with self._model.checked_by(check):
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

    def at_once(self, group: tuple[Stretch, ...]) -> Iterator[Chunk]:
        """Decode stretches at once, each on its own. Several threads may, of one recording too."""
        model, tokenizer, options = self._model, self._tokenizer, self._options
        features = [self._features(stretch) for stretch in group]
        frames = [stretch.samples.size // model.feature_extractor.hop_length for stretch in group]
        if model.model.device == "cpu":
            memory.give_back()  # the encoder takes most, and for a moment only
        encoded = self._encoded(features)
        prompt = model.get_prompt(tokenizer, self.prompt(), hotwords=options.hotwords)
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
            if parts and options.word_timestamps:
                # Each window for itself: the library takes them for one after the other, and all logits into memory.
                heard = ctranslate2.StorageView.from_array(encoded[number : number + 1])
                model.add_word_timestamps(
                    [parts], tokenizer, heard, frames[number], _PREPENDED, _APPENDED, 0.0
                )
            yield Chunk(stretch, measures, spans, [self._text(part, measures) for part in parts])

    def _features(self, stretch: Stretch) -> NDArray[np.float32]:
        """Return the model's whole window of a stretch, the rest of it silent: `[bands, frames]`.

        As OpenAI's own code has it. The library fills it with zeros, which are sound to the model: of 26 windows of
        whisper-tiny 18 then lacked their last sentence, and 3 with silence.
        """
        extractor = self._model.feature_extractor
        silent = max(0, extractor.n_samples - stretch.samples.size)
        features: NDArray[np.float32] = extractor(stretch.samples, padding=silent)
        return features[..., : extractor.nb_max_frames]

    def _encoded(self, windows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return what the decoder hears, `[windows, frames, width]`."""
        # One by one takes no longer on the CPU, and its attention a fraction of the memory: 4 windows of whisper-base
        # at once took 0.5 GB.
        together = [np.stack(windows)] if self._model.model.device == "cuda" else windows
        with self._model.checked_by(lambda _: self._check()):
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


def _search(options: Options) -> dict[str, object]:
    """Return how to look for the most likely words: as the library does it for one window."""
    if options.temperature:
        return {
            "beam_size": 1,
            "num_hypotheses": SAMPLES_OF,
            "sampling_topk": 0,
            "sampling_temperature": options.temperature,
        }
    return {"beam_size": options.beam_size, "patience": 1.0}
