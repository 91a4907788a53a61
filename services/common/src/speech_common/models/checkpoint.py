"""One model's directory: which files it must have, and what they say of the model. Never loads it.

Owns what is checked before a model is listed: that the files are there, complete and fit each other. Reads some
kilobytes, some 10 ms, so whoever asks often keeps the answer while `stamp_of` stays the same. Imports nothing heavy.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from speech_common.languages import LANGUAGE_NAMES
from speech_common.models.faults import CONVERT, ModelError
from speech_common.models.weights import Weights, read_weights

# Without tokenizer.json the library would quietly go to the internet for one.
_NEEDED = ("model.bin", "config.json", "tokenizer.json")
# In the order in which CTranslate2 looks for them.
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
_PREPROCESSOR = "preprocessor_config.json"
_FILES = (*_NEEDED, *VOCABULARIES, _PREPROCESSOR)
MAY_NOT_READ = f"user {os.getuid()}, as whom this server runs, may not read it (chmod -R a+rX)"
# What the library takes where there is no preprocessor_config.json.
_DEFAULT_MELS = 80
_SAMPLE_RATE = 16_000
# As CTranslate2 tells them apart, by the size of the vocabulary; Cantonese came with one token more.
_MULTILINGUAL_TOKENS = 51_865
_CANTONESE_TOKENS = 51_866
_MOST_JSON_BYTES = 2**20
# What ct2-transformers-converter writes. The original model's own config.json has none of it.
_CONFIG_KEYS = frozenset({"suppress_ids", "suppress_ids_begin", "lang_ids", "alignment_heads"})

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a model can do, as far as its files tell. `languages` are Whisper's codes.

    `times_words` where its config.json names the attention heads that tell where a word is, `tells_languages` where it
    has the languages' tokens, or there is only one language.
    """

    is_multilingual: bool
    languages: tuple[str, ...]
    times_words: bool = True
    tells_languages: bool = True


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model that can be loaded, as its files stood when they were looked at."""

    name: str
    directory: Path
    stamp: Stamp
    weights: Weights
    facts: Facts

    @property
    def created_s(self) -> int:
        """Return when model.bin was written, in seconds since 1970."""
        return self.stamp[0][2] // 10**9 if self.stamp[0] else 0


def stamp_of(directory: Path) -> Stamp:
    """Return what changes when one of the files does: inode, size and time of each, None for those that are not there.

    Raises ModelError where this user may not look.
    """
    try:
        return tuple(_stamp_of_file(directory / name) for name in _FILES)
    except PermissionError as exc:
        raise ModelError(MAY_NOT_READ) from exc


def inspect(name: str, directory: Path, stamp: Stamp) -> Checkpoint:
    """Check the files of a model. Raises ModelError, whose message names the file but not the directory."""
    try:
        return Checkpoint(name, directory, stamp, *_checked(directory))
    except PermissionError as exc:
        where = Path(exc.filename).name if exc.filename else directory.name
        raise ModelError(f"{where}: {MAY_NOT_READ}") from exc
    except OSError as exc:
        raise ModelError(f"the files cannot be read: {exc.strerror}") from exc


def missing_files(directory: Path) -> list[str]:
    """Return the names of the files that a model needs and that are not there. Raises OSError if it may not look."""
    missing = [name for name in _NEEDED if _stamp_of_file(directory / name) is None]
    if all(_stamp_of_file(directory / name) is None for name in VOCABULARIES):
        missing.append(" or ".join(VOCABULARIES))
    return missing


def _stamp_of_file(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except PermissionError:
        raise
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _checked(directory: Path) -> tuple[Weights, Facts]:
    missing = missing_files(directory)
    if missing:
        raise ModelError(f"{', '.join(missing)} missing: no Whisper model in CTranslate2 format. {CONVERT}")
    weights = read_weights(directory / "model.bin")
    facts = _facts(_json_object(directory / "config.json"), weights)
    _refuse_a_cut_off_tokenizer(directory / "tokenizer.json")
    _refuse_other_input(directory / _PREPROCESSOR, weights.mels)
    return weights, facts


def _facts(config: dict[str, object], weights: Weights) -> Facts:
    if not _CONFIG_KEYS & set(config):
        raise ModelError(
            "config.json is not the one that goes with model.bin (it has none of "
            f"{', '.join(sorted(_CONFIG_KEYS))}). {CONVERT}"
        )
    times_words = _is_list_of_heads(config.get("alignment_heads"), weights.decoder_layers)
    if weights.tokens < _MULTILINGUAL_TOKENS:
        return Facts(is_multilingual=False, languages=("en",), times_words=times_words)
    return Facts(
        is_multilingual=True,
        languages=tuple(
            code for code in LANGUAGE_NAMES if code != "yue" or weights.tokens >= _CANTONESE_TOKENS
        ),
        times_words=times_words,
        tells_languages=_is_list_of_numbers(config.get("lang_ids")),
    )


def _is_list_of_heads(value: object, layers: int) -> bool:
    """Tell whether these are places of attention heads, `[layer, head]` each."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(_is_list_of_numbers(head) and len(head) == 2 and head[0] < layers for head in value)
    )


def _is_list_of_numbers(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(number) is int and number >= 0 for number in value)
    )


def _refuse_other_input(path: Path, mels: int) -> None:
    """Compare what the library will feed with what the model takes: it would notice at the first request only."""
    remedy = f"copy {_PREPROCESSOR} (feature_size {mels}) from the original model"
    if not path.exists():
        if mels != _DEFAULT_MELS:
            raise ModelError(
                f"{_PREPROCESSOR} missing: this model takes {mels} mel bins, and without it would get "
                f"{_DEFAULT_MELS}; {remedy}"
            )
        return
    told = _json_object(path)
    fed = told.get("feature_size", _DEFAULT_MELS)
    if fed != mels:
        raise ModelError(
            f"{_PREPROCESSOR}: feature_size is {fed!r:.20}, but model.bin takes {mels}; {remedy}"
        )
    rate = told.get("sampling_rate", _SAMPLE_RATE)
    if rate != _SAMPLE_RATE:
        raise ModelError(f"{_PREPROCESSOR}: sampling_rate is {rate!r:.20}, and only {_SAMPLE_RATE} is served")


def _refuse_a_cut_off_tokenizer(path: Path) -> None:
    # Several megabytes: parsed when the model is loaded. A copy that was cut off shows at its end.
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
        if not file.read().rstrip().endswith(b"}"):
            raise ModelError("tokenizer.json is no JSON object to its end; copy it again")


def _json_object(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        text = file.read(_MOST_JSON_BYTES)
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{path.name} is no JSON; copy it again") from exc
    if not isinstance(told, dict):
        raise ModelError(f"{path.name} is no JSON object; copy it again")
    return told
