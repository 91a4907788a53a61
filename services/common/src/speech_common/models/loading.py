"""Find the default model's directory, and load and unload models.

Owns what only the library can tell of a model, each fault with a message that says what to set or copy. Imports the
heavy libraries (0.3 s), so nothing on the way to listening may import this module.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import ctranslate2

from speech_common.models import hub, memory
from speech_common.models.checkpoint import MAY_NOT_READ, VOCABULARIES, Checkpoint
from speech_common.models.faults import ModelError, PassingFault
from speech_common.models.served import Served
from speech_common.settings import MODEL_NAME, ServerSettings, is_directory_name

_log = logging.getLogger("speech.models")
M = TypeVar("M", bound=Served)
# The library asks for all of these, and fails or goes wrong without a word where one is not there.
_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|notimestamps|>",
)
_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
_TIMESTAMPS = (
    1501  # 0 to 30 s, every 20 ms; many tokenizers leave them out, and the library counts them itself
)
_AS_ORIGINAL = "copy tokenizer.json and the vocabulary from the model that model.bin was made from"


def locate_default(settings: ServerSettings, fetch: Callable[[str], Path] = hub.download) -> Path:
    """Return the directory of WHISPER_MODEL, fetching it first if need be. Blocks as long. Raises ModelError."""
    model = settings.model
    if settings.models_dir is not None and MODEL_NAME.fullmatch(model):
        directory = settings.models_dir / model
        if os.path.isdir(directory):  # noqa: PTH112 -- Path's raises if it may not look
            return directory
    if is_directory_name(model):
        directory = Path(os.path.expanduser(model))  # noqa: PTH111 -- Path's own raises for an unknown user
        try:
            if directory.is_dir():
                return directory
        except PermissionError as exc:
            raise ModelError(f"WHISPER_MODEL={model}: {MAY_NOT_READ}") from exc
        raise ModelError(f"WHISPER_MODEL={model}: there is no such directory")
    repository = hub.repository_of(model)
    if repository is None:
        raise ModelError(
            f"WHISPER_MODEL={model}: neither a directory nor a known size. Accepted: a directory, "
            f"owner/name on the Hugging Face hub, or one of {', '.join(hub.sizes())}"
        )
    try:
        return hub.cached(repository) or fetch(repository)
    except ModelError as exc:
        raise ModelError(f"WHISPER_MODEL={model}: {exc}") from exc


def load(checkpoint: Checkpoint, settings: ServerSettings, kind: type[M]) -> M:
    """Load a model as that class, and check what only shows then. Blocks for seconds. Raises ModelError.

    On the device `auto`, CUDA that does not work is told in the log, and the CPU taken.
    """
    began = time.monotonic()
    model = None
    if settings.device == "auto" and ctranslate2.get_cuda_device_count():
        try:
            model = _loaded(checkpoint, settings, kind, "cuda")
        except PassingFault as exc:
            _log.warning("event=cuda_not_used model=%s cause=%r", checkpoint.name, str(exc))
    if model is None:
        model = _loaded(checkpoint, settings, kind, "cpu" if settings.device == "auto" else settings.device)
    model.heard_bytes = checkpoint.weights.heard_bytes
    model.facts = checkpoint.facts
    try:
        _refuse_other_tokens(model, checkpoint)
    except BaseException:
        unload(model)
        raise
    _log.info(
        "event=model_loaded model=%s device=%s compute_type=%s threads=%d load_s=%.3f",
        checkpoint.name,
        model.model.device,
        model.model.compute_type,
        settings.threads_per_worker,
        time.monotonic() - began,
    )
    return model


def unload(model: Served) -> None:
    """Give a model's memory back, weights and tokenizer, whoever still holds the empty object. Nobody may use it."""
    with memory.given_back():
        model.model.unload_model()
        model.__dict__.clear()


def _loaded(checkpoint: Checkpoint, settings: ServerSettings, kind: type[M], device: str) -> M:
    """Load a model on a device, and on a GPU see that it works. Raises PassingFault where the files are not at fault."""
    compute_type = _compute_type(device, settings.compute_type)
    at_once = settings.workers * _streams(device, settings)
    try:
        with memory.mapped_apart(at_once):
            model = kind(
                str(checkpoint.directory),
                device=device,
                compute_type=compute_type,
                cpu_threads=settings.threads_per_worker,
                num_workers=at_once,
                local_files_only=True,
            )
    except Exception as exc:  # CTranslate2 and tokenizers raise bare RuntimeError, ValueError and Exception
        # Of what fails on a GPU, nothing tells the files' faults from those of the driver and its libraries.
        is_passing = device != "cpu" or isinstance(exc, (MemoryError, OSError))
        fault = PassingFault if is_passing else ModelError
        raise fault(f"model.bin cannot be loaded on {device} as {compute_type}: {exc}") from exc
    model.streams = _streams(device, settings)
    if device == "cpu":
        return model
    try:
        model.try_out()  # a library that is missing shows only now
    except RuntimeError as exc:
        unload(model)
        raise PassingFault(f"WHISPER_DEVICE={device}: {exc}") from exc
    return model


def _streams(device: str, settings: ServerSettings) -> int:
    """Return how many batches of one recording to decode at once.

    One decode does not keep two cores busy: of 8 windows, 4 at once took 5.3 s with whisper-tiny where twice 2 took
    4.4 s, and one by one 9.4 s (2 cores, int8, CTranslate2 4.8).
    """
    return 2 if device == "cpu" and settings.threads_per_worker > 1 else 1


def _compute_type(device: str, wanted: str) -> str:
    """Return what to compute in. Raises PassingFault for what the device cannot do."""
    if wanted == "default" or (wanted == "auto" and device == "cpu"):
        return "default" if wanted == "default" else "int8"
    try:
        possible = ctranslate2.get_supported_compute_types(device)
    except (RuntimeError, ValueError) as exc:
        raise PassingFault(f"WHISPER_DEVICE={device}: {exc}") from exc
    if wanted == "auto":
        return "float16" if "float16" in possible else "default"
    if wanted not in possible:
        raise PassingFault(
            f"WHISPER_COMPUTE_TYPE={wanted}: this {device} cannot do it. Accepted here: auto, default, "
            f"{', '.join(sorted(possible))}; weights of any type are converted when they are loaded"
        )
    return wanted


def _refuse_other_tokens(model: Served, checkpoint: Checkpoint) -> None:
    """Compare the tokenizer with the model's own vocabulary: one that is off by one token makes words of noise."""
    tokenizer = model.hf_tokenizer
    vocabulary = _vocabulary(checkpoint.directory)
    # The library takes the number of tokens for the number of languages, and does not compare.
    if len(vocabulary) != checkpoint.weights.tokens:
        raise ModelError(
            f"the vocabulary has {len(vocabulary)} tokens, and model.bin {checkpoint.weights.tokens}; {_AS_ORIGINAL}"
        )
    no_speech = next(
        (token for token in _NO_SPEECH if tokenizer.token_to_id(token) is not None), _NO_SPEECH[0]
    )
    for token in (*_SPECIAL_TOKENS, no_speech):
        number = tokenizer.token_to_id(token)
        if number is None:
            raise ModelError(f"tokenizer.json lacks the token {token}; {_AS_ORIGINAL}")
        if vocabulary[number : number + 1] != [token] and token in vocabulary:
            raise ModelError(
                f"tokenizer.json belongs to another model: {token} is {number} there and "
                f"{vocabulary.index(token)} in the vocabulary; {_AS_ORIGINAL}"
            )
    last = max(tokenizer.get_vocab_size(), tokenizer.token_to_id("<|notimestamps|>") + 1 + _TIMESTAMPS)
    if last > len(vocabulary):
        raise ModelError(
            f"tokenizer.json belongs to another model: it needs {last} tokens, the vocabulary has "
            f"{len(vocabulary)}; {_AS_ORIGINAL}"
        )


def _vocabulary(directory: Path) -> list[str]:
    """Return the model's tokens; each one's place is its number."""
    name = next(name for name in VOCABULARIES if (directory / name).exists() or name == VOCABULARIES[-1])
    try:
        content = (directory / name).read_bytes()
        tokens = (
            json.loads(content) if name.endswith(".json") else content.decode().removesuffix("\n").split("\n")
        )
    except (OSError, ValueError) as exc:
        raise ModelError(f"{name} cannot be read; {_AS_ORIGINAL}") from exc
    if not isinstance(tokens, list):
        raise ModelError(f"{name} is no list of tokens; {_AS_ORIGINAL}")
    return tokens
