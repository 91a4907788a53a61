"""Import whisperx's modules without what a transcription does not need.

They import each other's libraries, whatever is asked for. Seconds of CPU over torch's own 2 to 3 (whisperx 3.8.6):

- `whisperx.asr` 11, for pyannote.audio and for a base class and an iterator of transformers. Here 0.15.
- `whisperx.alignment` 11: 4 for nltk, which brings scipy and scikit-learn, and 6 for two classes of transformers. Here 1.2,
  which is pandas; the classes of transformers come with the first model that is in its format.
- `whisperx.diarize`, for pyannote.audio, as long as that. Here nothing over pandas.

So the import statements of these modules, and no others, find stand-ins: each module is loaded anew, beside Python's own
list of modules. Whoever else imports whisperx, transformers or pyannote.audio, in another thread too, gets the whole of
it. Imports nothing heavy itself.
"""

import builtins
import functools
import logging
import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

_log = logging.getLogger("speech.whisperx")
_lock = threading.Lock()


class _Whole:
    """Stands in for nltk's tokenizer: takes a text for one sentence. Where sentences end, `sentences.py` says."""

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return from where to where each sentence is."""
        return [(0, len(text))]


class Vad:
    """Stands in for the base of whisperx's detectors of voices, whence its pipeline takes its windows."""


class _Pipeline:
    """Stands in for the base of transformers' pipelines: does what that does where it is given a generator."""

    get_iterator: Any
    _forward: Any

    def __call__(self, inputs: Any, *, num_workers: int, batch_size: int) -> Any:
        return self.get_iterator(inputs, num_workers, batch_size, {}, {}, {})

    def forward(self, model_inputs: Any) -> Any:
        """Pass a batch on."""
        return self._forward(model_inputs)


class _OnUse:
    """Stands in for a class of transformers, which is imported when an object of it is made."""

    def __init__(self, name: str) -> None:
        self._name = name

    def from_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Make an object of that class from its files."""
        return getattr(import_module("transformers"), self._name).from_pretrained(*args, **kwargs)


def asr() -> Any:
    """Return `whisperx.asr`, which lacks its own detectors of voices.

    It needs one file of transformers, and takes no notice of pyannote.audio.
    """
    with _lock:
        return _asr()


def alignment() -> Any:
    """Return `whisperx.alignment`, which takes every text for one sentence.

    Without nltk (4 s) it never asks the network for nltk's data; transformers comes with the first model that needs it.
    """
    with _lock:
        return _alignment()


def diarize() -> Any:
    """Return `whisperx.diarize`, for its assignment of speakers: its pipeline lacks pyannote.audio."""
    with _lock:
        return _diarize()


@functools.cache
def _asr() -> ModuleType:
    transformers = Path(_origin("transformers")).parent
    iterators = _loaded(
        "transformers.pipelines.pt_utils",
        {"utils.generic": SimpleNamespace(ModelOutput=tuple)},
        transformers / "pipelines" / "pt_utils.py",
    )
    return _loaded(
        "whisperx.asr",
        {
            "transformers": SimpleNamespace(Pipeline=_Pipeline),
            "transformers.pipelines.pt_utils": iterators,
            "whisperx.vads": SimpleNamespace(Vad=Vad, Silero=Vad, Pyannote=Vad),
        },
    )


@functools.cache
def _alignment() -> ModuleType:
    classes = {name: _OnUse(name) for name in ("Wav2Vec2ForCTC", "Wav2Vec2Processor")}
    return _loaded(
        "whisperx.alignment",
        {
            "transformers": SimpleNamespace(**classes),
            "nltk": SimpleNamespace(),
            "nltk.data": SimpleNamespace(load=lambda _: _Whole()),
        },
    )


@functools.cache
def _diarize() -> ModuleType:
    return _loaded("whisperx.diarize", {"pyannote.audio": SimpleNamespace(Pipeline=None)})


def _loaded(name: str, stand_ins: Mapping[str, object], file: Path | None = None) -> ModuleType:
    """Load a module anew, whose imports find these instead of the modules of those names."""
    spec = spec_from_file_location(name, file or _origin(name))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)

    def find(wanted: str, *args: Any, **kwargs: Any) -> object:
        return stand_ins[wanted] if wanted in stand_ins else builtins.__import__(wanted, *args, **kwargs)

    # An import statement looks here for how it is done, and so does `print`: what the module says is for the log.
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": find, "print": _say}
    # With a handler of its own, whisperx does not write to the standard output. Its warnings quote what was said.
    logging.getLogger("whisperx").addHandler(logging.NullHandler())
    logging.getLogger("whisperx").setLevel(logging.ERROR)
    spec.loader.exec_module(module)
    return module


def _origin(name: str) -> str:
    """Return the file of a module, which is not imported for that; the package that it is in, is."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return spec.origin


def _say(*values: object, **_: object) -> None:
    _log.debug("event=said by=whisperx text=%r", " ".join(map(str, values)))
