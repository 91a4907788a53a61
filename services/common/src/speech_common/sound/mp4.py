"""Tell an MP4 whose tables cannot be true, before FFmpeg makes room for what they say.

Owns the boxes of ISO/IEC 14496-12, as far as that needs. FFmpeg keeps 24 bytes for each sample of each track from the
moment it opens a file, and takes the number from a field of 4 bytes: 1 kB took 4.3 GB (libavformat 62). The walk
goes through the boxes as FFmpeg's does, which heeds a table wherever it stands.
"""

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

# 29 hours of AAC at 48 kHz, 23 hours of video at 60 frames a second; 200 MB of FFmpeg's tables.
_MOST_SAMPLES = 5_000_000
# 4 hours of a browser's recording, in fragments of a second, have some 200,000.
_MOST_BOXES = 500_000
_DEEPEST = 12
_PCM_SAMPLES = 1024
"""What FFmpeg takes together of samples that have no frames of their own."""
# They hold no boxes. All others may.
_LEAVES = frozenset(
    {b"mdat", b"stts", b"stsz", b"stz2", b"stsc", b"stco", b"co64", b"ctts", b"stss", b"stsd"}
)
_LEAVES |= {b"trun", b"hdlr", b"tkhd", b"mdhd", b"mvhd", b"elst", b"sidx", b"tfhd", b"tfdt"}

Box = tuple[bytes, int, int]
"""Its type, where its body begins, and where it ends."""


def overstates(file: BinaryIO) -> bool:
    """Tell whether `file`, taken for an MP4, announces more samples than it could hold, or than anybody needs.

    Whatever is no MP4 may be either, and is not to be opened as one.
    """
    size = file.seek(0, io.SEEK_END)
    tracks = [_Track()]
    samples = 0.0
    for number, (kind, start, end) in enumerate(_boxes(file, 0, size, _DEEPEST)):
        if number >= _MOST_BOXES or kind == b"cmov":  # a compressed header, of a length that it says itself
            return True
        if kind == b"trak":
            tracks.append(_Track())
        elif kind == b"trun":
            samples += _number_at(file, start + 4)
        else:
            tracks[-1].learn(file, (kind, start, end))
    samples += sum(track.samples() for track in tracks)
    return samples > min(size, _MOST_SAMPLES)


class _Track:
    """What the tables of one track announce."""

    def __init__(self) -> None:
        self._samples = 0
        self._chunks = 0
        self._runs = np.zeros((0, 3), np.float64)
        self._durations: set[tuple[int, int]] = set()
        self._handlers: set[bytes] = set()

    def learn(self, file: BinaryIO, box: Box) -> None:
        kind, start, end = box
        if kind in (b"stsz", b"stz2"):
            self._samples = max(self._samples, _number_at(file, start + 8))
        elif kind in (b"stco", b"co64"):
            self._chunks = max(self._chunks, _number_at(file, start + 4))
        elif kind == b"stsc":
            count = min(_number_at(file, start + 4), (end - start - 8) // 12, _MOST_SAMPLES)
            file.seek(start + 8)
            told = file.read(12 * max(0, count))
            self._runs = np.frombuffer(told[: len(told) // 12 * 12], ">u4").reshape(-1, 3).astype(np.float64)
        elif kind == b"stts":
            self._durations.add((_number_at(file, start + 4), _number_at(file, start + 12)))
        elif kind == b"hdlr":
            file.seek(start + 8)
            self._handlers |= {file.read(4)} & {b"soun", b"vide"}

    def samples(self) -> float:
        """Return how many entries FFmpeg makes: one a sample, or for PCM one a thousand samples of a chunk."""
        if self._durations != {(1, 1)} or self._handlers != {b"soun"}:
            return self._samples
        firsts = np.append(self._runs[:, 0], self._chunks + 1.0)
        chunks = np.maximum(np.diff(firsts), 0)
        return float(np.sum(chunks * np.ceil(self._runs[:, 1] / _PCM_SAMPLES)))


def _boxes(file: BinaryIO, start: int, end: int, depth: int) -> Iterator[Box]:
    """Yield the boxes between two places, each before those within it."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack_from(">I4s", head)
        body = start + 8
        if size == 1 and len(head) == 16:
            size, body = struct.unpack_from(">Q", head, 8)[0], start + 16
        box_end = end if size == 0 else min(start + size, end)
        if box_end < body:
            return
        yield kind, body, box_end
        if kind not in _LEAVES and depth:
            yield from _boxes(file, body + (4 if kind == b"meta" else 0), box_end, depth - 1)
        start = box_end


def _number_at(file: BinaryIO, place: int) -> int:
    file.seek(place)
    return int.from_bytes(file.read(4), "big")
