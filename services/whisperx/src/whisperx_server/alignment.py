"""When words are said, by whisperx's alignment with a wav2vec2 model of their language. Imports torch and pandas (1 s).

Owns the use of `whisperx.alignment` (3.8.6), and which model there is for a language.
"""

import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from speech_common.sound.voice import FRAME_S
from speech_common.sound.windows import Stretch
from speech_common.transcript import Word
from speech_common.waiting import Check

from whisperx_server import lean
from whisperx_server.lazy import Lazy
from whisperx_server.said import Heard, Sentence
from whisperx_server.sentences import sentences

_log = logging.getLogger("speech.whisperx")
_whisperx = lean.alignment()
_VOICE = 0.5
_KEPT = 2
_FAILED_FOR_S = 600.0
_WAITED_S = 600.0
_BUNDLES = [
    name
    for name, bundle in vars(torchaudio.pipelines).items()
    if isinstance(bundle, torchaudio.pipelines.Wav2Vec2ASRBundle)
]


class Aligner:
    """Lays texts of one language on their audio. For any number of threads. `name` is what an answer says of it."""

    def __init__(self, name: str, model: Any, metadata: dict[str, Any], device: str) -> None:
        self.name = name
        self._model = model
        self._metadata = metadata
        self._device = device

    def sentences(self, stretch: Stretch, heard: Heard) -> list[Sentence]:
        """Divide the text of a stretch into sentences, and tell when each of its words is said.

        Times rise. What the model has no letters for, whisperx finds where something else is said. A text that cannot be
        laid on the audio at all (there is too much of it) is spread over the voices, and its words have the probability 0.
        """
        texts = self._words(heard.text)
        if not texts:
            return []
        said = {"text": heard.text, "start": 0.0, "end": stretch.duration_s}
        aligned = _whisperx.align([said], self._model, self._metadata, stretch.samples, self._device)
        return sentences(_timed(texts, aligned["word_segments"]) or _spread(texts, *_spoken(stretch)))

    def _words(self, text: str) -> list[str]:
        """Return words as whisperx divides a text, each with the space before it."""
        if self._metadata["language"] in _whisperx.LANGUAGES_WITHOUT_SPACES:
            return re.findall(r"\s*\S", text)
        words = (f" {word.strip()}" for word in text.split(" ") if word.strip())
        return list(words)


class Aligners:
    """The alignment models, each loaded on first use; the last two are kept. For any number of threads.

    In `models_dir`, the directory named by a language's code has its model, in transformers' format or as a checkpoint of
    torchaudio under its own name. For other languages whisperx's own choice is taken where it was downloaded before, or
    where `downloads_allowed`. `device` is `cpu`, or else CUDA where there is one.
    """

    def __init__(
        self,
        models_dir: Path | None,
        device: str,
        *,
        downloads_allowed: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models_dir = models_dir
        self._device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        self._downloads_allowed = downloads_allowed
        self._clock = clock
        self._loading = threading.Lock()  # one at a time: transformers changes torch while it loads
        self._lock = threading.Lock()
        self._kept: dict[str, Lazy[Aligner | None]] = {}
        self._ready: deque[str] = deque()
        self._failed: dict[str, float] = {}

    def find(self, language: str, check: Check = None) -> Aligner | None:
        """Return what aligns a language; None where nothing can be had for it, which is tried again after 10 minutes.

        Blocks while a model is loaded, or downloaded, which goes on when what `check` raises ends the waiting; it is called
        ten times a second. None too where that takes longer than `_WAITED_S`: the next one may find it.
        """
        with self._lock:
            if self._has_failed(language):
                return None
            aligner = self._kept.get(language)
            if aligner is None:
                aligner = self._kept[language] = Lazy(partial(self._found, language), "load-aligner")
        try:
            return aligner.get(check, _WAITED_S)
        except TimeoutError:
            return None

    def _found(self, language: str) -> Aligner | None:
        """Load what aligns a language, and make room for it; or note that nothing can be had."""
        began = self._clock()
        aligner = None
        with self._loading:
            try:
                aligner = self._load(language)
            except Exception as exc:  # noqa: BLE001 -- of all that strangers' files raise, none is to end a transcription
                # Where transformers finds nothing, whisperx says so in general, and not why.
                cause = str(exc.__context__ or exc).partition("\n")[0]
                _log.warning("event=no_aligner language=%s cause=%r", language, cause)
            else:
                _log.info(
                    "event=aligner_loaded language=%s model=%s device=%s load_s=%.3f",
                    language, aligner.name, self._device, self._clock() - began,
                )  # fmt: skip
        with self._lock:
            if aligner is None:
                self._failed[language] = self._clock()
                del self._kept[language]
            else:
                self._ready.append(language)
                if len(self._ready) > _KEPT:
                    del self._kept[self._ready.popleft()]
        return aligner

    def _has_failed(self, language: str) -> bool:
        failed_at = self._failed.get(language)
        return failed_at is not None and self._clock() - failed_at < _FAILED_FOR_S

    def _load(self, language: str) -> Aligner:
        directory = self._models_dir / language if self._models_dir else None
        if directory is not None and directory.is_dir():
            return self._load_from(directory, language)
        name = _whisperx.DEFAULT_ALIGN_MODELS_TORCH.get(language)
        if name is None and language not in _whisperx.DEFAULT_ALIGN_MODELS_HF:
            raise LookupError("whisperx knows no alignment model for it")
        if name is not None and not self._downloads_allowed and not _is_here(name):
            raise LookupError(f"{name} is not here, and downloads are not allowed")
        return self._loaded(name or _whisperx.DEFAULT_ALIGN_MODELS_HF[language], language)

    def _load_from(self, directory: Path, language: str) -> Aligner:
        if (directory / "config.json").is_file():
            name, path = directory.resolve().name, str(directory)
            return self._loaded(name, language, model_name=path, model_cache_only=True)
        for name in _BUNDLES:
            if (directory / _file_of(name)).is_file():
                return self._loaded(name, language, model_name=name, model_dir=str(directory))
        raise LookupError("its directory has neither a config.json nor a checkpoint of torchaudio")

    def _loaded(self, name: str, language: str, **where: object) -> Aligner:
        where = {"model_cache_only": not self._downloads_allowed, **where}
        model, metadata = _whisperx.load_align_model(language, self._device, **where)
        return Aligner(name, model.eval(), metadata, self._device)


def _file_of(name: str) -> str:
    """Return the name of the file that torch.hub keeps a model of torchaudio in."""
    return str(getattr(torchaudio.pipelines, name)._path)  # noqa: SLF001 -- it tells it nowhere else


def _is_here(name: str) -> bool:
    """Say whether a model of torchaudio was downloaded before."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / _file_of(name)).is_file()


def _timed(texts: Sequence[str], aligned: Sequence[Mapping[str, Any]]) -> list[Word] | None:
    """Return words as whisperx found them; None where it did not find all of them."""
    times = [(word.get("start", math.nan), word.get("end", math.nan)) for word in aligned]
    if len(times) != len(texts) or np.isnan(times).any():
        return None
    words: list[Word] = []
    for text, (start_s, end_s), found in zip(texts, times, aligned, strict=True):
        rising_s = max(float(start_s), words[-1].end if words else 0.0)
        score = min(max(float(found.get("score", 0.0)), 0.0), 1.0)
        words.append(Word(text, rising_s, max(float(end_s), rising_s), score))
    return words


def _spread(texts: Sequence[str], first_s: float, last_s: float) -> list[Word]:
    """Return words from first to last, each as long as it is written."""
    share_s = (last_s - first_s) / sum(map(len, texts))
    ends_s = accumulate((len(text) * share_s for text in texts), initial=first_s)
    return [
        Word(text, start_s, end_s, 0.0)
        for text, (start_s, end_s) in zip(texts, pairwise(ends_s), strict=True)
    ]


def _spoken(stretch: Stretch) -> tuple[float, float]:
    """Return from when to when there is a voice in a stretch; all of it where none is."""
    frames = np.flatnonzero(stretch.likely >= _VOICE)
    if not frames.size:
        return 0.0, stretch.duration_s
    return float(frames[0]) * FRAME_S, min(float(frames[-1] + 1) * FRAME_S, stretch.duration_s)
