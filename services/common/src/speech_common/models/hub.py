"""Models of the Hugging Face hub: find them in the hub client's cache, or download them into it.

Owns names on the hub. The look-up imports nothing heavy; the client is imported for a download only (0.5 s).
"""

import logging
import os
import re
from pathlib import Path

# A private table, but the only one there is; the sizes are not all in one owner's hands.
from faster_whisper.utils import _MODELS as _REPOSITORIES

from speech_common.models.checkpoint import missing_files
from speech_common.models.faults import ModelError

_HUB_FILES = ["config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*"]
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,99}/[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


def repository_of(model: str) -> str | None:
    """Return the hub's repository for a size (`base`) or a repository (`owner/name`), or None for anything else."""
    if "/" in model:
        return model if _REPOSITORY.fullmatch(model) else None
    repository: str | None = _REPOSITORIES.get(model)
    return repository


def name_of(repository: str) -> str:
    """Return the one name of a repository: the first size that means it, or itself."""
    return next((size for size, each in _REPOSITORIES.items() if each == repository), repository)


def cached(repository: str) -> Path | None:
    """Return the directory of a repository whose files are all in the cache."""
    # The client's own look-up costs 0.3 s of imports on every wake; its cache is one small file to read.
    cache = cache_directory() / f"models--{repository.replace('/', '--')}"
    try:
        snapshot = cache / "snapshots" / (cache / "refs" / "main").read_text().strip()
        return snapshot if not missing_files(snapshot) else None
    except OSError:
        return None


def sizes() -> list[str]:
    """Return the names that the library has for models on the hub."""
    return list(_REPOSITORIES)


def download(repository: str) -> Path:
    """Fetch a repository into the cache. Blocks; fails at once where there is no network. Raises ModelError."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 -- half a second, paid only by a download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError  # noqa: PLC0415
    from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # its own client, a line a request
    remedy = (
        f"It is not in the cache at {cache_directory()}. Put it there, connect to the internet, "
        "or use the directory of a model in CTranslate2 format (WHISPER_MODEL, WHISPER_MODELS_DIR)"
    )
    try:
        directory = Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
        missing = missing_files(directory)
    except (RepositoryNotFoundError, HFValidationError) as exc:
        raise ModelError(f"the hub has no model {repository}. {remedy}") from exc
    except Exception as exc:  # whatever transport and cache raise, the remedy is the same
        cause = str(exc).strip().split("\n", 1)[0] or type(exc).__name__
        raise ModelError(f"{repository} could not be downloaded ({cause}). {remedy}") from exc
    if missing:
        raise ModelError(
            f"{repository} on the hub has no {', '.join(missing)}: no Whisper model in CTranslate2 format"
        )
    return directory


def cache_directory() -> Path:
    """Return where the hub client keeps its cache, by the variables it documents."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
