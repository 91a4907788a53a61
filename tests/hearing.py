"""Recordings to be made up, and the pipeline in this process, with what it tells of its progress."""

import io
import itertools
import math
import re
import wave
from pathlib import Path

import av
import jiwer
import numpy as np
from speech_common.job import Abandoned
from speech_common.sound.voice import FRAME
from speech_common.sound.windows import Piece, Stretch, heard
from whisper_server import recording
from whisper_server.options import Options

EXAMPLES = Path(__file__).parents[1] / "examples"
RATE = 16000


class Heard:
    """What a recording told of its progress. Abandoned at the `gone_after`th check."""

    def __init__(self, gone_after=None):
        self.segments = []
        self.until_s = []
        self.facts = {}
        self.checks = 0
        self._gone_after = gone_after

    def check(self):
        self.checks += 1
        if self._gone_after is not None and self.checks > self._gone_after:
            raise Abandoned

    def known(self, **facts):
        self.facts |= {name: value for name, value in facts.items() if value is not None}

    def said(self, segment):
        self.segments.append(segment)

    def heard(self, until_s):
        self.until_s.append(until_s)


def samples_of(name):
    with wave.open(str(EXAMPLES / f"{name}.wav")) as source:
        return np.frombuffer(source.readframes(source.getnframes()), np.int16)


def floats_of(name):
    return samples_of(name).astype(np.float32) / 32768


def blocks(samples, size=1000):
    return (samples[start : start + size] for start in range(0, len(samples), size))


def silence(seconds):
    """Whole frames of it, at least so many seconds."""
    return np.zeros(math.ceil(seconds * RATE / FRAME) * FRAME, np.float32)


def stretch_of(*parts):
    """What was heard of these samples, one after the other."""
    return Stretch(heard(blocks(np.concatenate(parts).astype(np.float32))))


def piece_of(samples, first=0, likely=1.0):
    """A piece of a recording in each frame of which a voice is so likely."""
    return Piece(first, samples, np.full(-(-len(samples) // FRAME), likely, np.float32))


def wav(samples, rate=RATE, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as target:
        target.setparams((channels, 2, rate, 0, "NONE", ""))
        target.writeframes(np.asarray(samples).astype("<i2").tobytes())
    file.seek(0)
    return file


def encoded(source, name, codec, *, rate=RATE, layout="mono"):
    """A recording (a path, or a file) encoded anew."""
    target = io.BytesIO()
    with av.open(source) as recorded, av.open(target, "w", name) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(stream.format, layout, rate, stream.frame_size)
        for frame in itertools.chain(recorded.decode(audio=0), [None]):
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return target.getvalue()


def transcribed(model, file, progress=None, *, batch_size=0, max_audio_s=3600, **options):
    return recording.transcribe(
        model, file, Options(**options), progress or Heard(), batch_size=batch_size, max_audio_s=max_audio_s
    )


def pause(seconds):
    return np.zeros(int(seconds * RATE), np.int16)


def word_error_rate(spoken, written):
    """Compare as is usual: case, punctuation and hyphens do not count, nor does Mr. or Mister."""

    def normal(text):
        words = re.sub(r"[^a-z0-9' ]+", " ", text.lower()).split()
        return " ".join({"mister": "mr"}.get(word, word) for word in words)

    return jiwer.wer(normal(spoken), normal(written))
