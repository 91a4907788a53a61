"""Downloads of models that requests ask for: each once for all who wait, one at a time.

Owns the threads that download. Who waits for one may leave; it goes on to its end, and the next request finds it done.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from speech_common.models.faults import ModelError

_log = logging.getLogger("speech.models")


class Downloads:
    """What is being downloaded, by `fetch`; not what `find` finds already. Every method may be called from any thread."""

    def __init__(self, find: Callable[[str], Path | None], fetch: Callable[[str], Path]) -> None:
        self._find = find
        self._fetch = fetch
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._begun: dict[str, Future[Path]] = {}

    def fetched(self, repository: str) -> Future[Path]:
        """Begin to download a repository unless somebody has. Its result is the directory, or a ModelError.

        The thread is a daemon: a shutdown does not wait for it. One that failed is begun anew.
        """
        with self._lock:
            future = self._begun.get(repository)
            if future is None:
                future = self._begun[repository] = Future()
                threading.Thread(
                    target=self._run, args=(repository, future), name="download", daemon=True
                ).start()
            return future

    def _run(self, repository: str, future: Future[Path]) -> None:
        with self._turn:
            try:
                # Who asked as the last download ended finds here what it has brought.
                found: Path | ModelError = self._find(repository) or self._downloaded(repository)
            except ModelError as exc:
                _log.error("event=download_failed repository=%s cause=%r", repository, str(exc))
                found = exc
            except BaseException as exc:  # noqa: BLE001 -- whatever it was, those who wait must be told
                _log.exception("event=download_failed repository=%s", repository)
                found = ModelError(f"{repository}: unexpected {type(exc).__name__}; see the log")
        with self._lock:
            del self._begun[repository]
        if isinstance(found, ModelError):
            future.set_exception(found)
        else:
            future.set_result(found)

    def _downloaded(self, repository: str) -> Path:
        began = time.monotonic()
        _log.info("event=download repository=%s", repository)
        directory = self._fetch(repository)
        _log.info("event=downloaded repository=%s took_s=%.1f", repository, time.monotonic() - began)
        return directory
