"""The models of a server: which there are, which are in memory, and how to use one.

Joins what there is on disk (`catalogue.py`), on the hub (`downloads.py`) and in memory (`slots.py`), and owns the first
load of the default model. Knows neither HTTP nor audio.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from speech_common.errors import ModelLoading, ModelUnavailable, UnknownModel
from speech_common.models import hub, loading
from speech_common.models.catalogue import Catalogue
from speech_common.models.checkpoint import Checkpoint, Facts
from speech_common.models.downloads import Downloads
from speech_common.models.faults import ModelError, PassingFault
from speech_common.models.served import Served
from speech_common.models.slots import Slots
from speech_common.settings import ServerSettings
from speech_common.waiting import Check, result_of

_log = logging.getLogger("speech.models")
_RETRY_AFTER_S = 5
M = TypeVar("M", bound=Served)

OnLoad = Callable[[str, float, bool], None]


class ModelState(StrEnum):
    """Whether the default model can be used. It stays READY when it has made room: the next request loads it again.

    FAILED is for good: its first load failed, or the device works no more.
    """

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model of GET /v1/models. `created` is in seconds since 1970, when its weights were written."""

    name: str
    created: int
    is_default: bool
    aliases: tuple[str, ...]
    is_loaded: bool


class Registry(Generic[M]):
    """The models of one server. Every method may be called from any thread."""

    def __init__(
        self,
        settings: ServerSettings,
        load: Callable[[Checkpoint], M],
        unload: Callable[[M], None] = loading.unload,
        fetch: Callable[[str], Path] = hub.download,
    ) -> None:
        self.on_load: list[OnLoad] = []
        """Called after each load with the model's name, the seconds it took, and whether it ended well."""
        self._settings = settings
        self._catalogue = Catalogue(settings)
        self._slots = Slots(settings.models_loaded, load, unload, self._report_load)
        self._fetch = fetch
        self._downloads = Downloads(hub.cached, fetch)
        self._default: Future[None] = Future()
        self._failure: Future[ModelError] = Future()
        self._made_at = int(time.time())

    def start_loading(self) -> None:
        """Begin to load the default model, once. The thread is a daemon: a shutdown does not wait for a download."""
        threading.Thread(target=self._run_first_load, name="load-model", daemon=True).start()

    @property
    def state(self) -> ModelState:
        """Return where the default model stands."""
        if self._failure.done():
            return ModelState.FAILED
        return ModelState.READY if self._default.done() else ModelState.LOADING

    @property
    def failure(self) -> str | None:
        """Return why nothing works any more, or None."""
        return str(self._failure.result()) if self._failure.done() else None

    @property
    def loaded_count(self) -> int:
        """Return the number of models in memory. Looks at no files."""
        return len(self._slots.held())

    def fail(self, cause: ModelError) -> None:
        """Say that nothing works any more, and only a new process will help. The first cause stays."""
        with suppress(InvalidStateError):
            self._failure.set_result(cause)

    async def wait_until_failed(self) -> None:
        """Return when nothing works any more; else wait for ever. Cancelling leaves the load alone."""
        await asyncio.shield(asyncio.wrap_future(self._failure))

    def names(self) -> list[ModelInfo]:
        """Return the models that can be used: the default, which is always listed, and then by name.

        Looks at the directory each time: some ten system calls a model.
        """
        entries = self._catalogue.entries()
        loaded = {checkpoint.name for checkpoint in self._slots.held()}
        return [
            ModelInfo(
                name=entry.name,
                created=entry.checkpoint.created_s if entry.checkpoint else self._made_at,
                is_default=entry.name == self._settings.model_name,
                aliases=entry.aliases,
                is_loaded=entry.name in loaded,
            )
            for entry in entries
        ]

    def resolve(self, name: str | None) -> str:
        """Return the own name of the model a request asks for; None is the default.

        Raises UnknownModel, naming those there are, or ModelUnavailable, with what is wrong with the model's files.
        """
        return self._catalogue.resolve(name)

    def facts(self, name: str) -> Facts | None:
        """Return what a model can do, without loading it, or None for one that is still to be downloaded.

        Takes what `resolve` returned. Raises UnknownModel or ModelUnavailable where its files have gone since.
        """
        if name == self._settings.model_name:
            if not self._catalogue.has_default:
                return None
        elif self._catalogue.to_fetch(name) is not None:
            return None
        try:
            return self._checkpoint(name).facts
        except ModelError as exc:
            raise ModelUnavailable(f"{name}: {exc}") from exc

    @contextmanager
    def lease(self, name: str, check: Check = None) -> Iterator[M]:
        """Use a model, by what `resolve` returned. Nobody unloads it until the context ends.

        Blocks until it is loaded; for the default's first load, and for any download, at most `load_wait_s`. `check` is
        called ten times a second meanwhile, and what it raises ends the waiting; what has begun goes on to its end.
        Raises UnknownModel, ModelUnavailable or ModelLoading. A thread that asks for a second model within the first
        may wait for itself for ever.
        """
        with ExitStack() as leased:
            try:
                if name == self._settings.model_name:
                    result_of(self._default, check, self._settings.load_wait_s)
                elif repository := self._catalogue.to_fetch(name):
                    result_of(self._downloads.fetched(repository), check, self._settings.load_wait_s)
                model = leased.enter_context(self._slots.lease(self._checkpoint(name), check))
            except TimeoutError as exc:
                raise ModelLoading(self._settings.load_wait_s, _RETRY_AFTER_S) from exc
            except ModelError as exc:
                raise ModelUnavailable(f"{name}: {exc}") from exc
            yield model

    def _run_first_load(self) -> None:
        name = self._settings.model_name
        failure: ModelError | None = None
        try:
            try:
                checkpoint = self._catalogue.found_default(
                    loading.locate_default(self._settings, self._fetch)
                )
            except ModelError as exc:
                _log.error("event=model_failed model=%s cause=%r", name, str(exc))
                raise
            # While it was downloaded others may have taken every place. It is loaded when it is asked for, then.
            if self._slots.has_room():
                with self._slots.lease(checkpoint):
                    pass
        except ModelError as exc:
            failure = exc
        except BaseException as exc:  # noqa: BLE001 -- whatever it was, those who wait must be told
            _log.exception("event=model_failed model=%s", name)
            failure = ModelError(f"unexpected {type(exc).__name__}; see the log")
        if failure is None:
            self._default.set_result(None)
        else:
            self._default.set_exception(failure)
            self.fail(failure)

    def _checkpoint(self, name: str) -> Checkpoint:
        try:
            return self._catalogue.find(name)
        except (ModelError, UnknownModel, ModelUnavailable):
            # Its files have gone, or are being replaced; what is in memory does for those who were promised it.
            for checkpoint in self._slots.held():
                if checkpoint.name == name:
                    return checkpoint
            raise

    def _report_load(self, checkpoint: Checkpoint, took_s: float, failure: ModelError | None) -> None:
        if failure is not None and not isinstance(failure, PassingFault):
            self._catalogue.reject(checkpoint, failure)
        for callback in self.on_load:
            callback(checkpoint.name, took_s, failure is None)
