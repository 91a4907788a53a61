"""Decode what was uploaded to what the models hear: float32, mono, 16 kHz, `[samples]`.

Owns the use of PyAV, and imports it (0.2 s with numpy), so nothing on the way to listening may import this module.
Formats are told by content alone. Playlists are not among them: FFmpeg would open the files and addresses inside.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import av.audio
import numpy as np
from av.audio.fifo import AudioFifo
from numpy.typing import NDArray

from speech_common.errors import AudioTooLong, TruncatedAudio, UnreadableAudio
from speech_common.sound.headers import announced_by_mp3_s, announced_by_wav_s
from speech_common.sound.mp4 import overstates

SAMPLE_RATE = 16_000

_FORMATS = (
    "aac,ac3,adts,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,mpc,mpc8,ogg,tta,voc,"
    "w64,wav,wv"
)
_FORMATS_BUT_MP4 = _FORMATS.replace("mov,", "")
_MATROSKA = "matroska,webm"
# Formats that may leave out silence, and say by time stamps where the rest belongs.
_MAY_HAVE_GAPS = frozenset({_MATROSKA, "mov,mp4,m4a,3gp,3g2,mj2", "ogg"})
# Formats whose header states the length instead of leaving FFmpeg to guess it from the bit rate.
_EXACT_LENGTH = _MAY_HAVE_GAPS - {_MATROSKA} | {"flac", "w64"}
# Time stamps are rounded, and clocks drift; a longer gap than the second is a broken time stamp.
_SHORTEST_GAP_S = 0.25
_LONGEST_GAP_S = 600.0
# Full scale is 1. A float format may go beyond, but a model makes gibberish of what overflows when squared.
_LOUDEST = 1e9
# Beyond these a few kB become hours, or a resampler of gigabytes: 400 kB at 1.8 GHz took 1.9 GB and 30 s.
_LOWEST_RATE = 1_000
_HIGHEST_RATE = 1_000_000
# Samples that are resampled at once. Frame by frame, 10 minutes of MP3 at 44.1 kHz take 1.1 s, and so 0.54 s.
_RESAMPLED_AT_ONCE = 16_384
_ROUNDING_S = 0.001
_SLACK_S = 1.0
_SLACK_SHARE = 0.02


def announced_s(file: BinaryIO, max_s: float = math.inf) -> float | None:
    """Return how long `file` says it is, as far as its header can be believed; None where it does not say.

    Raises UnreadableAudio, or AudioTooLong where it says that its sound lasts longer than `max_s`.
    """
    with _opened(file) as (container, stream):
        announced = _announced_s(file, container, stream)
        is_sounds_own = container.format.name != _MATROSKA or len(container.streams) == 1
    if announced is not None and announced > max_s + _SLACK_S and is_sounds_own:
        raise AudioTooLong(max_s)
    return announced


def decoded_blocks(file: BinaryIO, max_s: float = math.inf) -> Iterator[NDArray[np.float32]]:
    """Decode `file` block by block, in constant memory. Blocks.

    Raises UnreadableAudio where nothing can be decoded, AudioTooLong as soon as there are more than `max_s` seconds,
    and, after the last block, TruncatedAudio where the end is missing: a transcript that silently lacks its second
    half would be worse than none.
    """
    samples = 0
    with _opened(file) as (container, stream):
        announced = _announced_s(file, container, stream)
        track = _Track(container, stream, max_s)
        for resampled in _resampled(track.frames()):
            block = resampled.to_ndarray().reshape(-1).astype(np.float32, copy=False)
            if not np.abs(block).max(initial=0.0) < _LOUDEST:  # false for NaN too
                raise UnreadableAudio("it holds samples that are no sound, such as NaN")
            samples += block.size
            yield block
    reached_s = track.reached_s
    if announced is not None and announced - reached_s > max(_SLACK_S, _SLACK_SHARE * announced):
        raise TruncatedAudio(announced, reached_s)
    if samples == 0:
        raise UnreadableAudio("it holds no sound")


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[av.container.InputContainer, av.audio.AudioStream]]:
    """Open the container and find its first audio stream; translate what PyAV raises meanwhile."""
    formats = _FORMATS_BUT_MP4 if overstates(file) else _FORMATS
    file.seek(0)
    try:
        with av.open(
            file, mode="r", metadata_errors="ignore", options={"format_whitelist": formats}
        ) as container:
            if not container.streams.audio:
                raise UnreadableAudio("it has no audio track")
            yield container, container.streams.audio[0]
    except av.error.FFmpegError as exc:
        raise UnreadableAudio("its format is unknown, or it is damaged") from exc


def _resampled(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Resample to what the models hear. Joined recordings may change rate and channels on the way."""
    form = fifo = resampler = None
    for frame in frames:
        if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
            yield from _rest(fifo, resampler)
            fifo = AudioFifo()
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        assert fifo is not None
        assert resampler is not None
        fifo.write(frame)
        if fifo.samples >= _RESAMPLED_AT_ONCE:
            yield from resampler.resample(fifo.read())
    yield from _rest(fifo, resampler)


def _rest(fifo: AudioFifo | None, resampler: av.AudioResampler | None) -> Iterator[av.AudioFrame]:
    """Resample what is held back."""
    if fifo is None or resampler is None:
        return
    if fifo.samples:
        yield from resampler.resample(fifo.read())
    yield from resampler.resample(None)


class _Track:
    """The sound of an open file: its frames, and how far into the recording they reach."""

    def __init__(
        self, container: av.container.InputContainer, stream: av.audio.AudioStream, max_s: float
    ) -> None:
        self._container = container
        self._stream = stream
        self._has_gaps = container.format.name in _MAY_HAVE_GAPS
        self._max_s = max_s
        self._heard_s = 0.0
        self._lost_s = 0.0
        self._end_s = -math.inf
        # Only Matroska's own length is that of its longest track, counted from zero.
        self._looks_at_all = container.format.name == _MATROSKA
        self._begin_s: float | None = 0.0 if self._looks_at_all else None
        # Sound alone begins when it begins; beside a video, when the recording does.
        has_company = self._has_gaps and len(container.streams) > 1
        self._shift_s = (container.start_time or 0) / av.time_base if has_company else None

    @property
    def reached_s(self) -> float:
        """Return where the sound ended, or in Matroska the video, less what could not be decoded."""
        if not self._has_gaps:
            return self._heard_s
        return max(self._heard_s, self._end_s - (self._begin_s or 0.0)) - self._lost_s

    def frames(self) -> Iterator[av.AudioFrame]:
        """Yield the frames that can be decoded, at most `max_s` seconds of them, at a rate that sound has."""
        demuxed = self._container.demux() if self._looks_at_all else self._container.demux(self._stream)
        for packet in demuxed:
            duration_s = self._reach(packet)
            if packet.stream.index != self._stream.index:
                continue
            try:
                frames = self._stream.decode(packet)
            except av.error.FFmpegError:
                # One broken packet among thousands; if they are many, the check at the end will tell.
                self._lost_s += duration_s
                continue
            for frame in frames:
                if not _LOWEST_RATE <= frame.sample_rate <= _HIGHEST_RATE:
                    raise UnreadableAudio(f"{frame.sample_rate} Hz is no rate of sound")
                yield from self._silence_before(frame)
                yield self._counted(frame)

    def _reach(self, packet: "av.Packet[Any]") -> float:
        """Take in when a packet ends, and return how long it lasts, in seconds."""
        if packet.pts is None or not packet.time_base:
            return 0.0
        start_s = float(packet.pts * packet.time_base)
        duration_s = float((packet.duration or 0) * packet.time_base)
        if self._begin_s is None:
            self._begin_s = start_s
        self._end_s = max(self._end_s, start_s + duration_s)
        return duration_s

    def _silence_before(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        """Fill what was left out before `frame`, so that what follows is where it belongs."""
        if not self._has_gaps or frame.time is None:
            return
        if self._shift_s is None:
            self._shift_s = frame.time - self._heard_s
        gap_s = frame.time - self._shift_s - self._heard_s
        if gap_s > _LONGEST_GAP_S:
            self._shift_s = frame.time - self._heard_s
        elif gap_s > _SHORTEST_GAP_S:
            missing = round(gap_s * frame.sample_rate)
            for first in range(0, missing, _RESAMPLED_AT_ONCE):
                yield self._counted(_silence(frame, min(_RESAMPLED_AT_ONCE, missing - first)))

    def _counted(self, frame: av.AudioFrame) -> av.AudioFrame:
        self._heard_s += frame.samples / frame.sample_rate
        if self._heard_s > self._max_s + _ROUNDING_S:
            raise AudioTooLong(self._max_s)
        frame.pts = None  # broken time stamps are common in recordings, and mean nothing from here on
        return frame


def _silence(like: av.AudioFrame, samples: int) -> av.AudioFrame:
    silence = av.AudioFrame(like.format.name, like.layout.name, samples)
    silence.sample_rate = like.sample_rate
    for plane in silence.planes:
        plane.update((b"\x80" if like.format.name.startswith("u8") else b"\0") * plane.buffer_size)
    return silence


def _announced_s(
    file: BinaryIO, container: av.container.InputContainer, stream: av.audio.AudioStream
) -> float | None:
    """Return the seconds that a container's header announces, and leave the file where it was."""
    position = file.tell()
    try:
        if container.format.name == "wav":
            return announced_by_wav_s(file)
        if container.format.name == "mp3":
            return announced_by_mp3_s(file)
    finally:
        file.seek(position)
    if container.format.name in _EXACT_LENGTH and stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.format.name == _MATROSKA and container.duration:
        return container.duration / av.time_base  # a browser's recorder leaves it out
    return None
