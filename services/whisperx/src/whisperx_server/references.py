"""The speakers that a client knows, from what it sent of them."""

import io
from collections.abc import Sequence

import numpy as np
from speech_common.errors import InvalidValue, UnreadableAudio
from speech_common.sound.audio import SAMPLE_RATE, decoded_blocks

from whisperx_server.options import Reference
from whisperx_server.speakers import KnownSpeaker

_PARAM = "known_speaker_references"
# As OpenAI's API has it, and a little more than its longest: what says it has 10 s may have 10.02.
_SHORTEST_S, _LONGEST_S, _LEEWAY_S = 2.0, 10.0, 0.1


def known_speakers(references: Sequence[Reference]) -> list[KnownSpeaker]:
    """Decode the samples. Raises InvalidValue for what is no audio of 2 to 10 s."""
    return [KnownSpeaker(each.name, _sample(each)) for each in references]


def _sample(reference: Reference) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    accepted = f"audio of {_SHORTEST_S:g} to {_LONGEST_S:g} s"
    try:
        blocks = list(decoded_blocks(io.BytesIO(reference.recording), _LONGEST_S + _LEEWAY_S))
    except UnreadableAudio as exc:
        raise InvalidValue(_PARAM, reference.name, f"{accepted}: {exc}") from exc
    sample = np.concatenate(blocks)
    if sample.size < (_SHORTEST_S - _LEEWAY_S) * SAMPLE_RATE:
        raise InvalidValue(_PARAM, reference.name, accepted)
    return sample
