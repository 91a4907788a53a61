"""Which models there are: the default, the directories under WHISPER_MODELS_DIR, their aliases, and the hub's cache.

Owns names. Looks anew each time it is asked, so that a directory is there as soon as it is complete and gone when it is
removed; of files that have not changed it remembers what they said. Loads nothing. All methods are thread-safe.

| a directory is           | it is listed | a request that asks for it                     |
|--------------------------|--------------|------------------------------------------------|
| complete, and fits       | yes          | gets it                                        |
| another name of one that is listed | as its alias | gets that                            |
| broken, or half copied   | no, and the log says why, once | ModelUnavailable, with the cause |
| hidden (`.name`)         | no           | UnknownModel                                   |

What is in none of these may still be on the hub: `to_fetch` tells what a request may have downloaded from there.
"""

import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from speech_common.errors import ModelUnavailable, UnknownModel
from speech_common.models import hub
from speech_common.models.checkpoint import Checkpoint, Stamp, inspect, stamp_of
from speech_common.models.faults import ModelError
from speech_common.settings import MODEL_NAME, NAME_RULE, ServerSettings

_log = logging.getLogger("speech.models")


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the list. `checkpoint` is None as long as the default's files are not there."""

    name: str
    aliases: tuple[str, ...]
    checkpoint: Checkpoint | None


@dataclass(slots=True)
class _View:
    """What is in the directory at one moment."""

    usable: dict[str, Checkpoint]
    links: dict[str, str]
    rejected: dict[str, str]


class Catalogue:
    """The models by name. The default is known by name at once, and by its files after `found_default`."""

    def __init__(self, settings: ServerSettings) -> None:
        self._default_name = settings.model_name
        self._aliases = settings.aliases
        self._directory = settings.models_dir
        self._may_fetch = settings.downloads == "sizes"
        self._default: Path | None = None
        self._lock = threading.Lock()
        self._inspected: dict[str, tuple[Path, Stamp, Checkpoint | ModelError]] = {}
        self._told: dict[str, str] = {}

    @property
    def has_default(self) -> bool:
        """Tell whether the default model's files have been found."""
        return self._default is not None

    def found_default(self, directory: Path) -> Checkpoint:
        """Say where the default model is. Raises ModelError, with the directory, if it cannot be used."""
        self._default = directory
        try:
            return self._look(self._default_name, directory)
        except ModelError as exc:
            raise ModelError(f"{directory}: {exc}") from exc

    def entries(self) -> list[Entry]:
        """Return the default first, then the others by name."""
        view = self._view()
        aliases: dict[str, list[str]] = {}
        for alias, target in (*self._aliases.items(), *view.links.items()):
            aliases.setdefault(view.links.get(target, target), []).append(alias)
        models: dict[str, Checkpoint | None] = {self._default_name: self._default_checkpoint()}
        models |= dict(sorted(view.usable.items()))
        return [Entry(name, tuple(aliases.get(name, ())), found) for name, found in models.items()]

    def resolve(self, name: str | None) -> str:
        """Return a model's own name. Raises UnknownModel, or ModelUnavailable with what is wrong with its files."""
        wanted = self._default_name if name is None else self._aliases.get(name, name)
        if wanted == self._default_name:
            return wanted
        view = self._view()
        wanted = view.links.get(wanted, wanted)
        if wanted in view.usable or wanted == self._default_name:
            return wanted
        if wanted in view.rejected:
            raise ModelUnavailable(f"{wanted}: {view.rejected[wanted]}")
        repository = hub.repository_of(wanted)
        directory = None if repository is None else hub.cached(repository)
        if repository is not None and directory is not None:
            is_default = _identity(directory) == _identity(self._default)
            return self._default_name if is_default else hub.name_of(repository)
        if repository is not None and self._is_fetchable(hub.name_of(repository)):
            return hub.name_of(repository)
        raise UnknownModel(name or wanted, self._names(view))

    def to_fetch(self, name: str) -> str | None:
        """Return the hub's repository of a model, by its own name, that is not here and may be downloaded, or None.

        Those are the library's sizes and what WHISPER_ALIASES names: who asks is not to fill the disk with what he likes.
        """
        repository = hub.repository_of(name)
        if repository is None or not self._is_fetchable(name) or hub.cached(repository) is not None:
            return None
        view = self._view()
        return None if name in view.usable or name in view.rejected else repository

    def _is_fetchable(self, name: str) -> bool:
        return self._may_fetch and (name in hub.sizes() or name in self._aliases.values())

    def find(self, name: str) -> Checkpoint:
        """Return the files of a model by its own name. Raises UnknownModel, ModelUnavailable or ModelError."""
        if name == self._default_name:
            if self._default is None:
                raise ModelUnavailable(f"{name}: it is not here yet")
            return self._look(name, self._default)
        view = self._view()
        if name in view.usable:
            return view.usable[name]
        if name in view.rejected:
            raise ModelUnavailable(f"{name}: {view.rejected[name]}")
        repository = hub.repository_of(name)
        directory = None if repository is None else hub.cached(repository)
        if directory is None:
            raise UnknownModel(name, self._names(view))
        return self._look(name, directory)

    def reject(self, checkpoint: Checkpoint, cause: ModelError) -> None:
        """Take a model out of the list, since it does not load, until its files change."""
        with self._lock:
            self._inspected[checkpoint.name] = (checkpoint.directory, checkpoint.stamp, cause)

    def _names(self, view: _View) -> list[str]:
        return list(dict.fromkeys([self._default_name, *sorted(view.usable), *self._aliases]))

    def _default_checkpoint(self) -> Checkpoint | None:
        try:
            return self._look(self._default_name, self._default) if self._default is not None else None
        except ModelError:
            return None

    def _view(self) -> _View:
        view = _View({}, {}, {})
        default = _identity(self._default)
        owners = {default: self._default_name} if default is not None else {}
        try:
            directories = self._directories()
        except OSError as exc:
            directories = []
            view.rejected["WHISPER_MODELS_DIR"] = f"it cannot be read: {exc.strerror}"
        for name, directory in directories:
            identity = _identity(directory)
            if name == self._default_name and (self._default is None or identity == default):
                continue
            try:
                self._refuse_name(name)
                owner = owners.setdefault(identity, name) if identity is not None else name
                if owner != name:
                    view.links[name] = owner
                else:
                    view.usable[name] = self._look(name, directory)
            except ModelError as exc:
                view.rejected[name] = str(exc)
        self._tell(view.rejected)
        return view

    def _refuse_name(self, name: str) -> None:
        if not MODEL_NAME.fullmatch(name):
            raise ModelError(f"this name cannot be used in requests; rename it: a name has {NAME_RULE}")
        if name == self._default_name:
            raise ModelError("this is the default model's name (WHISPER_MODEL_NAME); rename the directory")
        if name in self._aliases:
            raise ModelError(f"this name is an alias of {self._aliases[name]}; rename the directory")

    def _directories(self) -> list[tuple[str, Path]]:
        """Return names and directories, real ones before links to them. A plain file is no model, and no fault."""
        if self._directory is None:
            return []
        with os.scandir(self._directory) as found:
            entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))
        return [
            (entry.name, Path(entry.path))
            for entry in entries
            if not entry.name.startswith(".") and (entry.is_dir() or not Path(entry.path).exists())
        ]

    def _look(self, name: str, directory: Path) -> Checkpoint:
        """Return what the files say, from memory if they have not changed. Raises ModelError."""
        stamp = stamp_of(directory)
        with self._lock:
            known = self._inspected.get(name)
        if known is None or known[:2] != (directory, stamp):
            known = (directory, stamp, _inspected(name, directory, stamp))
            with self._lock:
                self._inspected[name] = known
        if isinstance(known[2], ModelError):
            raise ModelError(str(known[2]))
        return known[2]

    def _tell(self, rejected: dict[str, str]) -> None:
        """Log each fault once, and again only after it has gone or has become another one."""
        with self._lock:
            fresh = {name: cause for name, cause in rejected.items() if self._told.get(name) != cause}
            self._told = rejected
        for name, cause in fresh.items():
            _log.warning("event=model_rejected name=%r cause=%r", name, cause)


def _inspected(name: str, directory: Path, stamp: Stamp) -> Checkpoint | ModelError:
    try:
        return inspect(name, directory, stamp)
    except ModelError as exc:
        return exc


def _identity(directory: Path | None) -> tuple[int, int] | None:
    """Return what two names of one directory have in common, or None where there is none."""
    try:
        found = directory.stat() if directory is not None else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found is not None else None
