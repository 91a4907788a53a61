"""How durations are told to people, and text that others wrote is made safe for a terminal.

Pure and light: the command line loads it on every call. Imports nothing of ours.
"""


def age(seconds: float) -> str:
    """Return a duration in at most two units: `0.4s`, `12s`, `5m 3s`, `2h 13m`, `3d 4h`."""
    if seconds < 1:
        return f"{seconds:.1f}s"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    d, h = divmod(hours, 24)
    counts = ((d, "d"), (h, "h"), (m, "m"), (s, "s"))
    largest = next(index for index, (count, _) in enumerate(counts) if count)
    return " ".join(f"{count}{unit}" for count, unit in counts[largest : largest + 2] if count)


def counted(number: int, what: str) -> str:
    """Return `1 service`, `2 services`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def printable(text: str) -> str:
    """Return `text` with control characters escaped: names and log lines come from outside (CWE-150)."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
