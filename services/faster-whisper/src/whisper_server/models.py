"""Find the directory of the configured model, and load it.

Owns the ways in which a model can be missing, each with a message that says what to set. Imports the heavy
libraries (0.3 s), so nothing on the way to listening may import this module.
"""

import os
from pathlib import Path

import ctranslate2

# A private table, but the only one there is; the sizes are not all in one owner's hands.
from faster_whisper.utils import _MODELS as _REPOSITORIES

from whisper_server.model import Model
from whisper_server.settings import Settings, is_directory_name

_HUB_FILES = ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"]
_MAY_NOT_READ = f"user {os.getuid()}, as whom this server runs, may not read it (chmod -R a+rX)"


class ModelError(Exception):
    """The model cannot be loaded. The message names the cause and what to do."""


def load(settings: Settings) -> Model:
    """Load the configured model, downloading it first if need be. Blocks for as long. Raises ModelError."""
    directory = _local_directory(settings.model) or _download(settings.model)
    _check(directory)
    device = settings.device
    if device == "auto":
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    compute_type = settings.compute_type
    if compute_type == "auto":
        compute_type = "float16" if device == "cuda" else "int8"
    try:
        return Model(
            str(directory),
            device=device,
            compute_type=compute_type,
            cpu_threads=settings.threads_per_worker,
            num_workers=settings.workers,
            local_files_only=True,
        )
    except Exception as exc:  # CTranslate2 and tokenizers raise bare RuntimeError, ValueError and Exception
        raise ModelError(f"{directory} on {device} as {compute_type}: {exc}") from exc


def _local_directory(model: str) -> Path | None:
    """Return the model's directory if it is on this machine: as named, or in the hub's cache."""
    if is_directory_name(model):
        directory = Path(os.path.expanduser(model))  # noqa: PTH111 -- Path's own raises for an unknown user
        try:
            directory.stat()
        except PermissionError as exc:
            raise ModelError(f"WHISPER_MODEL={model}: {_MAY_NOT_READ}") from exc
        except OSError:
            pass
        if not directory.is_dir():
            raise ModelError(f"WHISPER_MODEL={model}: there is no such directory")
        return directory
    # The hub's own look-up costs 0.3 s of imports on every wake; its cache is one small file to read.
    cache = _hub_cache() / f"models--{_repository(model).replace('/', '--')}"
    try:
        snapshot = cache / "snapshots" / (cache / "refs" / "main").read_text().strip()
    except OSError:
        return None
    return snapshot if not _missing_files(snapshot) else None


def _download(model: str) -> Path:
    """Fetch the model from the hub into its cache."""
    # Half a second of imports, paid only by a download.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError  # noqa: PLC0415

    repository = _repository(model)
    remedy = (
        f"It is not in the cache at {_hub_cache()}. Put it there, connect to the internet, "
        "or set WHISPER_MODEL to the directory of a model in CTranslate2 format"
    )
    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except (RepositoryNotFoundError, HFValidationError) as exc:
        raise ModelError(f"WHISPER_MODEL={model}: the hub has no model {repository}. {remedy}") from exc
    except Exception as exc:  # whatever transport and cache raise, the remedy is the same
        cause = str(exc).strip().split("\n", 1)[0] or type(exc).__name__
        raise ModelError(
            f"WHISPER_MODEL={model}: {repository} could not be downloaded ({cause}). {remedy}"
        ) from exc


def _repository(model: str) -> str:
    """Return the hub's repository for a size (`base`) or a repository (`owner/name`)."""
    if "/" in model:
        return model
    repository: str | None = _REPOSITORIES.get(model)
    if repository is None:
        raise ModelError(
            f"WHISPER_MODEL={model}: neither a directory nor a known size. Accepted: a directory, "
            f"owner/name on the Hugging Face hub, or one of {', '.join(_REPOSITORIES)}"
        )
    return repository


def _hub_cache() -> Path:
    """Return where the hub client keeps its cache, by the variables it documents."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _check(directory: Path) -> None:
    try:
        missing = _missing_files(directory)
    except PermissionError as exc:
        raise ModelError(f"{directory}: {_MAY_NOT_READ}") from exc
    if missing:
        raise ModelError(
            f"{directory} is not a Whisper model in CTranslate2 format: {', '.join(missing)} missing. "
            "ct2-transformers-converter makes one from an original model"
        )


def _missing_files(directory: Path) -> list[str]:
    # Without tokenizer.json the library would quietly go to the internet for one.
    needed = ("model.bin", "config.json", "tokenizer.json")
    return [name for name in needed if not (directory / name).is_file()]
