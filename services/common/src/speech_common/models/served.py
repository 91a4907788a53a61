"""A loaded model, made fit for a server: its work can be interrupted, and it tells what it can do.

Owns what every service adds to the library's models; knows neither settings nor requests. Imports the heavy libraries
(0.3 s).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from speech_common.models.checkpoint import Facts

_WINDOW_FRAMES = 3_000


class Served:
    """What stands before the library's WhisperModel, or one of its kind, among the bases of a class.

    One model for all threads; which request a thread works for is the thread's own. `heard_bytes` is what its decoder
    keeps of one window (`Weights.heard_bytes`), `facts` what its files tell, and `streams` how many batches of one recording
    are decoded at once.
    """

    model: Any
    hf_tokenizer: Any
    frames_per_second: float
    detect_language: Callable[..., Any]
    heard_bytes = 0
    streams = 1

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._thread = threading.local()
        languages = super().supported_languages  # type: ignore[misc]  # the library is not typed
        self.facts = Facts(self.model.is_multilingual, tuple(languages))

    @property
    def supported_languages(self) -> list[str]:
        """Return the codes of the languages it knows. The library's own list has Cantonese for all."""
        return list(self.facts.languages)

    def try_out(self) -> None:
        """Encode a window of silence, and wait for the result. Raises RuntimeError where the device cannot do it."""
        silence = np.zeros((1, self.model.n_mels, _WINDOW_FRAMES), np.float32)
        self.model.encode(ctranslate2.StorageView.from_array(silence), to_cpu=True)

    def has_lost_its_device(self) -> bool:
        """Tell whether the GPU does no work any more, after it has failed once. Want of memory passes."""
        if self.model.device == "cpu":
            return False
        try:
            self.try_out()
        except RuntimeError as exc:
            return not is_want_of_memory(exc)
        return False

    @contextmanager
    def checked_by(self, check: Callable[[float], None]) -> Iterator[None]:
        """Within the context, call `check` in this thread before every window; what it raises ends the decoding.

        It is told when the window begins in the audio that `transcribe` was given, in seconds.
        """
        self._thread.check, self._thread.first = check, 0
        try:
            yield
        finally:
            del self._thread.check

    def encode(self, features: NDArray[np.float32]) -> ctranslate2.StorageView:
        """Encode windows of 30 s. The library passes here for every window, silent ones included."""
        check = getattr(self._thread, "check", None)
        if check is not None:
            check(self._thread.first / self.frames_per_second)
        return super().encode(features)  # type: ignore[misc]


def is_want_of_memory(exc: Exception) -> bool:
    """Tell whether the GPU has no room left: CTranslate2 has no class of its own for that (4.8)."""
    return "out of memory" in str(exc)
