"""Decode what was uploaded to what the models hear: float32, mono, 16 kHz, `[samples]`.

Owns the use of PyAV, and imports it (0.2 s with numpy), so nothing on the way to listening may import this module.
Formats are told by content alone. Playlists are not among them: FFmpeg would open the files and addresses inside.
"""

import io
import math
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import av
import av.audio
import numpy as np
from numpy.typing import NDArray

from speech_common.errors import AudioTooLong, TruncatedAudio, UnreadableAudio

SAMPLE_RATE = 16_000

_FORMATS = (
    "aac,ac3,adts,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,mpc,mpc8,ogg,tta,voc,"
    "w64,wav,wv"
)
# Formats whose header states the length instead of leaving FFmpeg to guess it from the bit rate.
_EXACT_LENGTH = frozenset({"flac", "mov,mp4,m4a,3gp,3g2,mj2", "ogg", "w64"})
_WAV_OPEN_ENDED_BYTES = 0x7FFFF000  # recorders that write to a pipe announce 0, 2^31-1 or 2^32-1
# Full scale is 1. A float format may go beyond, but a model makes gibberish of what overflows when squared.
_LOUDEST = 1e9
# Beyond these a few kB become hours, or a resampler of gigabytes: 400 kB at 1.8 GHz took 1.9 GB and 30 s.
_LOWEST_RATE = 1_000
_HIGHEST_RATE = 1_000_000
_ROUNDING_S = 0.001
_SLACK_S = 1.0
_SLACK_SHARE = 0.02


def check_audio(file: BinaryIO) -> None:
    """Open `file` and see that it holds sound, without decoding it. Blocks. Raises UnreadableAudio."""
    with _opened(file):
        pass


def decode(
    file: BinaryIO, max_s: float = math.inf, *, is_given_up: Callable[[], bool] = lambda: False
) -> NDArray[np.float32]:
    """Decode the whole of `file`. Blocks; 64 kB of memory per second of audio.

    Once `is_given_up` it ends soon, and what it returns is of no use.

    Raises UnreadableAudio where nothing can be decoded, AudioTooLong as soon as there are more than `max_s` seconds,
    and TruncatedAudio where the end is missing: a transcript that silently lacks its second half would be worse
    than none.
    """
    collected = io.BytesIO()
    for block in decoded_blocks(file, max_s):
        collected.write(block.data)
        if is_given_up():
            break
    return np.frombuffer(collected.getbuffer(), dtype=np.float32)


def decoded_blocks(file: BinaryIO, max_s: float = math.inf) -> Iterator[NDArray[np.float32]]:
    """Decode `file` block by block, in constant memory. Raises as `decode` does, TruncatedAudio after the last."""
    announced_s = _announced_by_wav_s(file)
    samples = 0
    with _opened(file) as (container, stream):
        exact = container.format.name in _EXACT_LENGTH
        if announced_s is None and exact and stream.duration and stream.time_base:
            announced_s = float(stream.duration * stream.time_base)
        elif announced_s is None and container.format.name == "matroska,webm" and container.duration:
            announced_s = container.duration / av.time_base  # a browser's recorder leaves it out
        for resampled in _resampled(_frames(container, stream, max_s)):
            block = resampled.to_ndarray().reshape(-1).astype(np.float32, copy=False)
            if not np.abs(block).max(initial=0.0) < _LOUDEST:  # false for NaN too
                raise UnreadableAudio("it holds samples that are no sound, such as NaN")
            samples += block.size
            yield block
    decoded_s = samples / SAMPLE_RATE
    if announced_s is not None and announced_s - decoded_s > max(_SLACK_S, _SLACK_SHARE * announced_s):
        raise TruncatedAudio(announced_s, decoded_s)
    if samples == 0:
        raise UnreadableAudio("it holds no sound")


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[av.container.InputContainer, av.audio.AudioStream]]:
    """Open the container and find its first audio stream; translate what PyAV raises meanwhile."""
    file.seek(0)
    try:
        with av.open(
            file, mode="r", metadata_errors="ignore", options={"format_whitelist": _FORMATS}
        ) as container:
            if not container.streams.audio:
                raise UnreadableAudio("it has no audio track")
            yield container, container.streams.audio[0]
    except av.error.FFmpegError as exc:
        raise UnreadableAudio("its format is unknown, or it is damaged") from exc


def _resampled(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Resample to what the models hear. Joined recordings may change rate and channels on the way."""
    resampler: av.AudioResampler | None = None
    form = None
    for frame in frames:
        if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
            if resampler is not None:
                yield from resampler.resample(None)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        assert resampler is not None
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)  # what it held back


def _frames(
    container: av.container.InputContainer, stream: av.audio.AudioStream, max_s: float
) -> Iterator[av.AudioFrame]:
    """Yield the frames that can be decoded, at most `max_s` seconds of them, at a rate that sound has."""
    heard_s = 0.0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue  # one broken packet among thousands; if they are many, the length check will tell
        for frame in frames:
            if not _LOWEST_RATE <= frame.sample_rate <= _HIGHEST_RATE:
                raise UnreadableAudio(f"{frame.sample_rate} Hz is no rate of sound")
            heard_s += frame.samples / frame.sample_rate
            if heard_s > max_s + _ROUNDING_S:
                raise AudioTooLong(max_s)
            frame.pts = None  # broken time stamps are common in recordings, and mean nothing here
            yield frame


def _announced_by_wav_s(file: BinaryIO) -> float | None:
    """Return the seconds that a WAV header announces, or None: FFmpeg only tells what is really there."""
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    bytes_per_s = 0
    while len(chunk := file.read(8)) == 8:
        name, size_bytes = struct.unpack("<4sI", chunk)
        if name == b"data":
            known = bytes_per_s and 0 < size_bytes < _WAV_OPEN_ENDED_BYTES
            return size_bytes / bytes_per_s if known else None
        body = file.tell()
        if name == b"fmt " and len(fmt := file.read(16)) == 16:
            bytes_per_s = struct.unpack("<HHIIHH", fmt)[3]
        file.seek(body + size_bytes + size_bytes % 2)
    return None
