"""How often models were loaded, and how long that took: counted from the first load on, when nothing else is there yet.

Imports nothing heavy; `metrics.py` shows it.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class ModelFigures(NamedTuple):
    """What a service counts of its models since it started: `loads` by outcome, `loaded` or `failed`."""

    loaded: int
    loads: Mapping[str, int]
    load_s: float


class LoadTally:
    """Counts loads, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loads: Counter[str] = Counter(loaded=0, failed=0)
        self._load_s = 0.0

    def add(self, _name: str, took_s: float, is_loaded: bool) -> None:  # noqa: FBT001 -- as `Registry.on_load` calls it
        """Count a load that ended, well or not."""
        with self._lock:
            self._loads["loaded" if is_loaded else "failed"] += 1
            self._load_s += took_s

    def figures(self, loaded: int) -> ModelFigures:
        """Return what was counted, with how many models are in memory now."""
        with self._lock:
            return ModelFigures(loaded, dict(self._loads), self._load_s)
