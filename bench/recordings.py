"""Real speech of any length, joined from `examples/`, with what is said in it."""

import itertools
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.stand import ROOT

EXAMPLES = ROOT / "examples"
NAMES = ("austen-0870", "austen-0880", "austen-0890", "two-speakers")
_RATE = 16_000
_PAUSE_S = 0.4


@dataclass(frozen=True, slots=True)
class Recording:
    """A WAV file (16 kHz, mono), its words and its length."""

    path: Path
    words: str
    seconds: float


def single(name: str) -> Recording:
    """Return one of `NAMES` as it is."""
    path = EXAMPLES / f"{name}.wav"
    with wave.open(str(path)) as wav:
        return Recording(path, _words(name), wav.getnframes() / wav.getframerate())


def joined(directory: Path, seconds: float, names: Sequence[str] = NAMES) -> Recording:
    """Write `names` in turn, each whole and with a pause after it, until there are at least so many seconds."""
    path = directory / f"joined-{seconds:g}.wav"
    pause = bytes(2 * int(_PAUSE_S * _RATE))
    pieces = itertools.cycle([(_samples(name), _words(name)) for name in names])
    words: list[str] = []
    written = 0
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(_RATE)
        while written < 2 * seconds * _RATE:
            samples, said = next(pieces)
            wav.writeframes(samples + pause)
            written += len(samples) + len(pause)
            words.append(said)
    return Recording(path, " ".join(words), written / 2 / _RATE)


def _samples(name: str) -> bytes:
    with wave.open(str(EXAMPLES / f"{name}.wav")) as wav:
        samples: bytes = wav.readframes(wav.getnframes())
    return samples


def _words(name: str) -> str:
    return (EXAMPLES / f"{name}.txt").read_text().replace("\n", " ").strip()
