"""How long a recording says it is, where FFmpeg does not tell what the header says: WAV and MP3.

Reads a few hundred bytes. Imports nothing but the standard library.
"""

import functools
import struct
from typing import BinaryIO

_WAV_OPEN_ENDED_BYTES = 0x7FFFF000  # recorders that write to a pipe announce 0, 2^31-1 or 2^32-1
# The samples come after a handful of chunks. Half a gigabyte of empty ones would take a minute to walk.
_MOST_WAV_CHUNKS = 1_000
# PCM, float, A-law, mu-law and the extensible header of any of them: each sample of a channel has its own bits.
_PLAIN_WAV_CODES = frozenset({1, 3, 6, 7, 0xFFFE})
_MP3_HEAD_BYTES = 4 + 32 + 12


def announced_by_mp3_s(file: BinaryIO) -> float | None:
    """Return the seconds that a Xing or Info header announces, or None where there is none.

    FFmpeg reads it too, but does not tell it from its own guess. Layout: the frame's header, zeros for the side
    information, then `Xing` or `Info`, flags, and with flag 1 the number of frames.
    """
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3" and len(head) == 10:
        size = functools.reduce(lambda size, byte: size << 7 | byte & 0x7F, head[6:], 0)
        file.seek(10 + size + (10 if head[5] & 0x10 else 0))
    else:
        file.seek(0)
    frame = file.read(_MP3_HEAD_BYTES)
    if len(frame) < _MP3_HEAD_BYTES or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # layer III
        return None
    version = frame[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate_index = frame[2] >> 2 & 3
    if version == 1 or rate_index == 3:
        return None
    rate = (44100, 48000, 32000)[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    is_mono = frame[3] >> 6 == 3
    side_bytes = (17 if is_mono else 32) if version == 3 else (9 if is_mono else 17)
    tag, flags, frames = struct.unpack_from(">4sII", frame, 4 + side_bytes)
    if tag not in (b"Xing", b"Info") or not flags & 1:
        return None
    return float(frames * (1152 if version == 3 else 576) / rate)


def announced_by_wav_s(file: BinaryIO) -> float | None:
    """Return the seconds that a WAV header announces, or None: FFmpeg only tells what is really there."""
    file.seek(0)
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    bytes_per_s = 0.0
    for _ in range(_MOST_WAV_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, size_bytes = struct.unpack("<4sI", chunk)
        if name == b"data":
            known = bytes_per_s and 0 < size_bytes < _WAV_OPEN_ENDED_BYTES
            return size_bytes / bytes_per_s if known else None
        body = file.tell()
        if name == b"fmt " and len(fmt := file.read(16)) == 16:
            code, channels, rate, told_bytes_per_s, _, bits = struct.unpack("<HHIIHH", fmt)
            # What the header says of bytes a second is wrong in many a recorder's files, and FFmpeg does not heed it.
            bytes_per_s = rate * channels * bits / 8 if code in _PLAIN_WAV_CODES else told_bytes_per_s
        file.seek(body + size_bytes + size_bytes % 2)
    return None
