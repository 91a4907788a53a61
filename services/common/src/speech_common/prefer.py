"""The `Prefer` header (RFC 7240), as far as a speech service honours it. Imports nothing of ours."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LONGEST_WAIT_S = 600
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"?|[^",]+|,')


class RespondAsync(NamedTuple):
    """The caller would rather not wait, or only `wait_s` seconds."""

    wait_s: int = 0

    @property
    def applied(self) -> str:
        """Return what `Preference-Applied` says."""
        return f"respond-async, wait={self.wait_s}" if self.wait_s else "respond-async"


def respond_async(headers: Iterable[str]) -> RespondAsync | None:
    """Read the values of all `Prefer` headers; None where the caller wants to wait.

    What is not understood is passed over, as the RFC demands; of what comes twice, the first counts.
    """
    found: dict[str, str] = {}
    for preference in _preferences(", ".join(headers)):
        name, _, value = preference.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    if "respond-async" not in found:
        return None
    wait = found.get("wait", "")
    return RespondAsync(min(int(wait), _LONGEST_WAIT_S) if re.fullmatch(r"[0-9]{1,9}", wait) else 0)


def _preferences(header: str) -> Iterator[str]:
    """Split at the commas that stand outside of quotes."""
    preference = ""
    for piece in _PIECE.findall(header):
        if piece == ",":
            yield preference
            preference = ""
        else:
            preference += piece
    yield preference
