"""What is said in windows of a recording, by whisperx's batched transcription. Imports torch and whisperx (3 s).

Owns the use of `whisperx.asr` (3.8.6). Where the voices are was heard before (`speech_common.sound`), so its pipeline is
told the windows in place of a detector. It has no second try where a text loops or has no end; here such a window is
decoded again in halves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import ctranslate2
import numpy as np
from faster_whisper.transcribe import get_compression_ratio
from numpy.typing import NDArray
from speech_common.models import memory
from speech_common.models.served import Served
from speech_common.sound.audio import SAMPLE_RATE
from speech_common.sound.windows import Stretch
from speech_common.transcript import Word

from whisperx_server import lean
from whisperx_server.pauses import without_pauses
from whisperx_server.said import Heard

_whisperx = lean.asr()
_PREPENDED, _APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
# As OpenAI's own code has it.
_REPETITIVE = 2.4
# Of the tokens that the decoder writes at most. How many they were is counted anew from the text, and may come out lower.
_NEARLY_ALL = 0.95
# As the library has them.
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
# Fewer frames are none to the decoder, which cannot find words in them.
_FEWEST_FRAMES = 2


class Model(Served, _whisperx.WhisperModel):  # type: ignore[misc,name-defined]  # the library is not typed
    """whisperx's model, for all threads."""

    def encode(self, features: Any) -> ctranslate2.StorageView:
        """Encode windows of 30 s, `[windows, mels, frames]`; what is encoded already stays as it is.

        On the CPU one by one: it takes as long, and its attention a fraction of the memory.
        """
        if isinstance(features, ctranslate2.StorageView):
            return features
        windows = np.asarray(features)
        if self.model.device != "cpu" or windows.ndim == 2 or len(windows) == 1:
            return super().encode(windows)
        parts = [_array(super(Model, self).encode(one)) for one in windows]
        return ctranslate2.StorageView.from_array(np.concatenate(parts))


def hear(
    model: Served,
    group: Sequence[Stretch],
    *,
    language: str,
    task: str,
    prompt: str | None,
    hotwords: str | None,
    beam_size: int,
    times_words: bool,
    check: Callable[[], None],
) -> list[Heard]:
    """Write down what is said in stretches of at most 28 s, decoded as one batch; in each on its own.

    `model` is a Model. Any number of threads may. `check` is called before every window; what it raises ends the work.
    """

    def decoded(windows: Sequence[Stretch]) -> list[tuple[Heard, bool]]:
        if model.model.device == "cpu":
            memory.give_back()  # the encoder takes most, and for a moment only
        call = _Call(
            model, windows, times_words=times_words, divides=task == "transcribe" and language in _UNSPACED
        )
        options = {"beam_size": beam_size, "initial_prompt": prompt, "hotwords": hotwords}
        # Given a model it loads nothing, and neither the name nor the device matters.
        pipeline = _whisperx.load_model(
            "", "cpu", model=call, vad_model=_Windows(windows), language=language, task=task, asr_options=options
        )  # fmt: skip
        with model.checked_by(lambda _: check()):
            samples = np.concatenate([one.samples for one in windows])
            pipeline.transcribe(samples, batch_size=len(windows), language=language, task=task)
        return call.heard

    def settled(stretch: Stretch, heard: Heard, *, is_cut_short: bool) -> Heard:
        halves = stretch.halves()
        if len(halves) == 1 or not (is_cut_short or heard.compression_ratio > _REPETITIVE):
            return heard
        parts = []
        for half in halves:
            if half.may_speak():
                [(said, is_half_cut)] = decoded([half])
                parts.append((half, settled(half, said, is_cut_short=is_half_cut)))
            else:
                parts.append((half, Heard("", 0.0)))
        return _joined(parts)

    return [
        settled(stretch, heard, is_cut_short=is_cut_short)
        for stretch, (heard, is_cut_short) in zip(group, decoded(group), strict=True)
    ]


class _Call:
    """The model, as whisperx's pipeline sees it for one batch: what it decodes is kept, which the pipeline does not."""

    def __init__(self, model: Any, windows: Sequence[Stretch], *, times_words: bool, divides: bool) -> None:
        self._model = model
        self._windows = windows
        self._times_words = times_words
        self._divides = divides
        self.heard: list[tuple[Heard, bool]] = []
        """What each window says, and whether the decoder had no room for all of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate_segment_batched(self, features: Any, tokenizer: Any, options: Any) -> dict[str, list[Any]]:
        """Decode a batch; the pipeline passes here once."""
        model = self._model
        encoded = model.encode(features)
        said: dict[str, list[Any]] = model.generate_segment_batched(encoded, tokenizer, options)
        most = self._most(tokenizer, options)
        heard_by = _array(encoded) if self._times_words else None
        for number, (text, avg_logprob) in enumerate(zip(said["text"], said["avg_logprob"], strict=True)):
            tokens = tokenizer.encode(text)
            words: tuple[Word, ...] = ()
            if heard_by is not None and text.strip():
                one = ctranslate2.StorageView.from_array(heard_by[number : number + 1])
                window = self._windows[number]
                attended = self._words(text, tokens, one, tokenizer, window)
                words = tuple(without_pauses(attended, window.likely))
            ratio = get_compression_ratio(text.strip()) if text.strip() else 0.0
            self.heard.append((Heard(text, avg_logprob, words, ratio), len(tokens) >= most))
        return said

    def _most(self, tokenizer: Any, options: Any) -> float:
        """Return from how many tokens on a text was probably cut short."""
        before = tokenizer.encode(" " + options.initial_prompt.strip()) if options.initial_prompt else []
        prompt = self._model.get_prompt(tokenizer, before, without_timestamps=True, hotwords=options.hotwords)
        # The decoder writes at most half of what it has room for, and then no end (CTranslate2 4.8).
        longest = self._model.max_length
        most = min(longest // 2, longest - len(prompt))
        return _NEARLY_ALL * float(most)

    def _words(
        self, text: str, tokens: list[int], heard_by: Any, tokenizer: Any, window: Stretch
    ) -> Iterator[Word]:
        """Tell when the words of a window are said, by the decoder's attention."""
        part: dict[str, Any] = {
            "seek": 0,
            "start": 0.0,
            "end": window.duration_s,
            "tokens": tokens,
            "text": text,
        }
        frames = max(int(window.duration_s * self._model.frames_per_second), _FEWEST_FRAMES)
        self._model.add_word_timestamps([[part]], tokenizer, heard_by, frames, _PREPENDED, _APPENDED, 0.0)
        words = (
            Word(word["word"], float(word["start"]), float(word["end"]), float(word["probability"]))
            for word in part["words"]
        )
        yield from words if self._divides else _whole(words)


class _Windows(lean.Vad):
    """What whisperx's pipeline takes for a detector: it finds the windows that were cut already."""

    def __init__(self, windows: Sequence[Stretch]) -> None:
        # The pipeline rounds down to whole samples.
        ends = accumulate((one.samples.size for one in windows), initial=0)
        self._spans = [
            {"start": (first + 0.5) / SAMPLE_RATE, "end": (last + 0.5) / SAMPLE_RATE}
            for first, last in pairwise(ends)
        ]

    def __call__(self, _: object) -> list[dict[str, float]]:
        return self._spans

    @staticmethod
    def preprocess_audio(audio: NDArray[np.float32]) -> NDArray[np.float32]:
        return audio

    @staticmethod
    def merge_chunks(spans: list[dict[str, float]], *_: object, **__: object) -> list[dict[str, float]]:
        return spans


def _whole(words: Iterable[Word]) -> Iterator[Word]:
    """Join what has no space between: the library divides "cold-hearted" and "3.5", whisperx's alignment does not."""
    held = None
    for word in words:
        if held is None or word.word[:1].isspace():
            if held is not None:
                yield held
            held = word
        else:
            likelihood = min(held.probability, word.probability)
            held = Word(held.word + word.word, held.start, word.end, likelihood)
    if held is not None:
        yield held


def _joined(parts: Sequence[tuple[Stretch, Heard]]) -> Heard:
    """Return what was said in stretches that follow each other as said in all of them."""
    text = "".join(heard.text for _, heard in parts)
    starts_s = accumulate((stretch.duration_s for stretch, _ in parts), initial=0.0)
    letters = sum(len(heard.text) for _, heard in parts)
    return Heard(
        text,
        sum(heard.avg_logprob * len(heard.text) for _, heard in parts) / max(letters, 1),
        tuple(
            Word(word.word, word.start + start_s, word.end + start_s, word.probability)
            for start_s, (_, heard) in zip(starts_s, parts, strict=False)
            for word in heard.words
        ),
        get_compression_ratio(text.strip()) if text.strip() else 0.0,
    )


def _array(view: ctranslate2.StorageView) -> NDArray[np.float32]:
    """Return what the encoder gave, in a type that numpy has; the decoder turns it into its own again."""
    return np.array(view.to_device(ctranslate2.Device.cpu).to(ctranslate2.DataType.float32))
