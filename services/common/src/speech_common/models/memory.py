"""Give memory back to the system, where glibc would keep it. Knows nothing of models.

Measured with whisper-base as int8 over ten loads (glibc 2.36, CTranslate2 4.8.5; resident MB): 66 before, 265 in use.
After dropping the model 310 without all this, 139 with malloc_trim alone, 90 with what is done here; and transcribing
takes no longer, for the fixed thresholds save a third of the page faults.
"""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

# As mallopt(3) numbers them.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_SMALL_BYTES = 256 * 1024
# Of what a transcription takes and frees, larger blocks than this return at once, as does more than that at the end of an
# arena. 32 MB is the most that glibc takes, and where it would arrive by itself. With 8 MB, 5 minutes of speech took the
# same memory in batches (314 MB over the loaded whisper-tiny, 281 with this; six hours 365 and 375), and 3 % more CPU time,
# window by window 8 %.
_MMAP_BYTES = 32 * 2**20
_TRIM_BYTES = 4 * 2**20
_FEWEST_ARENAS = 2


@contextmanager
def mapped_apart(at_once: int = 1) -> Iterator[None]:
    """Within the context, take larger blocks from the system one by one, so that each returns when it is freed.

    From then on there are arenas for so many decodes at once.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        _mallopt(_M_ARENA_MAX, max(_FEWEST_ARENAS, at_once))
    _mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
    try:
        yield
    finally:
        _mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        _mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


@contextmanager
def given_back() -> Iterator[None]:
    """Give back what is freed within the context, and whatever else is free at its end."""
    # malloc_trim leaves the top of every thread's arena alone; this threshold has free() give that back.
    _mallopt(_M_TRIM_THRESHOLD, _SMALL_BYTES)
    try:
        yield
    finally:
        give_back()
        _mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)


def give_back() -> None:
    """Give back what lies free between blocks in use: a decoder leaves much, as it takes a little more at every step.

    Before every batch of whisper-tiny that took 20 ms, 1 % of the time, and lowered the peak of 10 minutes of speech from
    349, 371 and 383 MB over the loaded model to 312, 313 and 330.
    """
    if hasattr(_libc(), "malloc_trim"):
        _libc().malloc_trim(ctypes.c_size_t(0))


def _mallopt(parameter: int, value: int) -> None:
    # Only glibc has it. musl gives back at once anyway.
    if hasattr(_libc(), "mallopt"):
        _libc().mallopt(parameter, value)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
