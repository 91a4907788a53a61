"""Read what `model.bin` says of itself, without reading the weights.

Owns CTranslate2's file format (version 6): a header, then for each variable its name, shape, type and bytes. Skipping
from one to the next takes 10 ms, and finds a file that was copied only in part. Imports nothing heavy.
"""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from speech_common.models.faults import CONVERT, ModelError

_CHUNK_BYTES = 4096
_MOST_VARIABLES = 100_000
_MELS = "encoder/conv1/weight"
_TOKENS = "decoder/embeddings/weight"
_DECODER_LAYER = re.compile(r"decoder/layer_\d+/")
_FRAMES = 1500
_CUT_OFF = (
    "model.bin ends in the middle of its weights; it is still being copied, or the copy was cut off: "
    "copy it again"
)


@dataclass(frozen=True, slots=True)
class Weights:
    """What a file of weights is made for: mel bins of its input, tokens of its vocabulary, the decoder's size."""

    mels: int
    tokens: int
    decoder_layers: int
    decoder_width: int

    @property
    def heard_bytes(self) -> int:
        """Return what the decoder keeps of one window: a key and a value for each frame and layer, as float32."""
        return _FRAMES * 2 * self.decoder_layers * self.decoder_width * 4


def read_weights(path: Path) -> Weights:
    """Read the header of every variable. Raises ModelError for a file that is incomplete, or no Whisper model."""
    with path.open("rb", buffering=0) as file:
        return _Reader(file.fileno()).read()


class _Reader:
    """A place in the file, and the bytes that were read around it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._at = 0
        self._chunk = b""
        self._chunk_at = 0

    def read(self) -> Weights:
        version = self._number("I")
        if not 2 <= version <= 99:
            raise ModelError(f"model.bin is not in CTranslate2 format. {CONVERT}")
        kind = self._text()
        if kind != "WhisperSpec":
            raise ModelError(f"model.bin is a {kind!r:.60}, not a Whisper model. {CONVERT}")
        self._number("I")
        shapes = {}
        count = self._number("I")
        if count > _MOST_VARIABLES:
            raise ModelError(_CUT_OFF)
        for _ in range(count):
            name = self._text()
            shapes[name] = [self._number("I") for _ in range(self._number("B"))]
            self._number("B")
            size_bytes = self._number("I")
            self._at += size_bytes
        for _ in range(self._number("I")):
            alias, name = self._text(), self._text()
            shapes[alias] = shapes.get(name, [])
        mels, tokens = shapes.get(_MELS, []), shapes.get(_TOKENS, [])
        if len(mels) != 3 or len(tokens) != 2:
            raise ModelError(f"model.bin lacks the weights of a Whisper model. {CONVERT}")
        layers = {found[0] for name in shapes if (found := _DECODER_LAYER.match(name))}
        return Weights(mels=mels[1], tokens=tokens[0], decoder_layers=len(layers), decoder_width=tokens[1])

    def _text(self) -> str:
        length = self._number("H")
        # A file that was only given its size, and not yet its bytes, reads as zeros.
        if not 1 < length <= 1024:
            raise ModelError(_CUT_OFF)
        return self._bytes(length)[:-1].decode("utf-8", "replace")

    def _number(self, kind: str) -> int:
        number: int = struct.unpack("<" + kind, self._bytes(struct.calcsize("<" + kind)))[0]
        return number

    def _bytes(self, length: int) -> bytes:
        start = self._at - self._chunk_at
        if not 0 <= start <= len(self._chunk) - length:
            self._chunk = os.pread(self._descriptor, max(length, _CHUNK_BYTES), self._at)
            self._chunk_at, start = self._at, 0
        self._at += length
        found = self._chunk[start : start + length]
        if len(found) < length:
            raise ModelError(_CUT_OFF)
        return found
