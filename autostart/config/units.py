"""Durations and sizes as people write them. Imports nothing of ours."""

import re
from fractions import Fraction

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,3})?")
_SECONDS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]i?)?B?")
_BYTES = {None: 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES |= {"Ki": 2**10, "ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_LONGEST = 60


def parse_duration(value: object) -> float:
    """Return seconds for `"90s"`, `"15m"`, `"1h30m"`, `"200ms"` or a number of seconds.

    Raises ValueError for anything else, negative numbers and infinity included.
    """
    seconds = -1.0
    if isinstance(value, str) and len(text := value.strip()) <= _LONGEST:
        parts = list(_DURATION_PART.finditer(text))
        if parts and "".join(part.group() for part in parts) == text:
            # Summed exactly and rounded once, so that what `format_duration` writes is read back bit for bit.
            seconds = float(sum(Fraction(part[1]) * _SECONDS[part[2]] for part in parts))
        elif _NUMBER.fullmatch(text):
            seconds = float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < 1e300 else -1.0
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{str(value)[:_LONGEST]!r} is not a duration of zero or more")
    return seconds


def format_duration(seconds: float) -> str:
    """Return a short spelling that `parse_duration` reads back exactly: `1h30m`, `15m`, `0.25s`; `never`."""
    if seconds == float("inf"):
        return "never"
    if seconds != int(seconds) or not 1 <= seconds < 2**53:
        text = repr(float(seconds)).removesuffix(".0")
        return text if "e" in text else f"{text}s"
    left = int(seconds)
    text = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            text += f"{count}{unit}"
    return text


def parse_size(value: object) -> int:
    """Return bytes for `"500MB"` (10⁶), `"4GiB"` (2³⁰) or a number of bytes. Raises ValueError otherwise."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and value == value // 1:
        return int(value)
    if isinstance(value, str) and len(value) <= _LONGEST and (match := _SIZE.fullmatch(value.strip())):
        return int(Fraction(match[1]) * _BYTES[match[2]])
    raise ValueError(f"{str(value)[:_LONGEST]!r} is not a size")


def format_size(size_bytes: int) -> str:
    """Return the shortest exact spelling that `parse_size` reads back: `500MB`, `4GiB`, `1234`."""
    spellings = [str(size_bytes)]
    for unit in ("TB", "GB", "MB", "kB", "TiB", "GiB", "MiB", "KiB"):
        factor = _BYTES[unit[:-1]]
        if size_bytes and size_bytes % factor == 0:
            spellings.append(f"{size_bytes // factor}{unit}")
    return min(spellings, key=lambda text: (len(text.rstrip("kKMGTiB")), len(text)))
