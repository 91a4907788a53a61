"""How many windows of a recording are decoded at once: what the memory has room for, and what the first words wait for."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from speech_common.models.served import Served

T = TypeVar("T")
# On the CPU more windows at a time are hardly any faster. Each takes memory: over the loaded whisper-base (int8, a beam
# of 5, 200 s of speech, two batches at once) 2 windows took 320 MB at most and 4 took 420 MB, some 2.4 times what the
# decoder keeps of one for each; 400 MB is the limit.
_BATCH_ON_CPU = 4
_BATCH_MEMORY_BYTES = 250e6
_SHARE_OF_BEAMS = 2.4
_USUAL_BEAMS = 5
_BATCH_ON_CUDA = 16


def within_memory(model: Served, beams: int, wanted: int | None, configured: int) -> int:
    """Return how many windows to decode at once: what the client wants, at most what was configured or fits."""
    fitting = fitting_batch(model.model.device, model.heard_bytes, beams)
    return min(wanted or configured or fitting, max(configured, fitting))


def fitting_batch(device: str, heard_bytes: int, beams: int = _USUAL_BEAMS) -> int:
    """Return how many windows to decode at once, by what a model's decoder keeps of one, and for how many beams."""
    if device == "cuda":
        return _BATCH_ON_CUDA
    share = _SHARE_OF_BEAMS * max(1.0, beams / _USUAL_BEAMS)
    return max(1, min(_BATCH_ON_CPU, int(_BATCH_MEMORY_BYTES / max(1.0, share * heard_bytes))))


def groups(items: Iterable[T], most: int) -> Iterator[tuple[T, ...]]:
    """Yield one, then two, then four together, up to `most`: what the first says is not to wait for all of them."""
    source = iter(items)
    count = 1
    while group := tuple(islice(source, count)):
        yield group
        count = min(2 * count, most)
