"""Every setting, read once from the environment. Imports nothing heavy: it runs before listening."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from speech_common.environment import Environment

_DEVICES = ("auto", "cpu", "cuda")
# As CTranslate2 names them; which of them a device can do, the load tells.
_COMPUTE_TYPES = (
    "auto",
    "default",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
)
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, slots=True)
class Settings:
    """The server's settings; each names its environment variable."""

    model: str
    """WHISPER_MODEL: a directory in CTranslate2 format, or a name on the Hugging Face hub. Default `base`."""
    model_name: str
    """WHISPER_MODEL_NAME: the name clients use. Default: the hub name, or the directory's own name."""
    device: str
    """WHISPER_DEVICE: `auto` (CUDA where there is one), `cpu` or `cuda`."""
    compute_type: str
    """WHISPER_COMPUTE_TYPE: default int8 on the CPU, float16 on CUDA (`auto`)."""
    threads: int
    """WHISPER_THREADS: CPU threads of one transcription; 0 shares the CPUs among the workers."""
    workers: int
    """WHISPER_WORKERS: transcriptions at a time; the others wait their turn. Default 1."""
    load_wait_s: float
    """WHISPER_LOAD_WAIT: how long a request waits for the model, then 503. Default 2m."""
    max_upload_bytes: int
    """MAX_UPLOAD: the largest request body. Default 500MB."""
    max_audio_s: float
    """MAX_AUDIO: the longest recording; one hour takes about 1 GB of memory. Default 4h."""
    shutdown_s: float
    """SHUTDOWN_TIMEOUT: how long open requests may take to end after SIGTERM. Default 5s."""
    host: str
    """HOST: the address to listen on. Default 127.0.0.1."""
    port: int
    """PORT: default 8001; 0 takes a free one, which the log names."""
    log_level: str
    """LOG_LEVEL: DEBUG also logs health requests."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Self:
        """Read and check all variables. Raises SettingError: which variable, and what is accepted."""
        env = Environment(variables)
        model = env.text("WHISPER_MODEL", "base")
        return cls(
            model=model,
            model_name=env.text("WHISPER_MODEL_NAME", _name_of(model)),
            device=env.choice("WHISPER_DEVICE", "auto", _DEVICES),
            compute_type=env.choice("WHISPER_COMPUTE_TYPE", "auto", _COMPUTE_TYPES),
            threads=env.integer("WHISPER_THREADS", 0, 0, 1024),
            workers=env.integer("WHISPER_WORKERS", 1, 1, 64),
            load_wait_s=env.duration_s("WHISPER_LOAD_WAIT", "2m"),
            max_upload_bytes=env.size_bytes("MAX_UPLOAD", "500MB"),
            max_audio_s=env.duration_s("MAX_AUDIO", "4h"),
            shutdown_s=env.duration_s("SHUTDOWN_TIMEOUT", "5s"),
            host=env.text("HOST", "127.0.0.1"),
            port=env.integer("PORT", 8001, 0, 65535),
            log_level=env.choice("LOG_LEVEL", "INFO", _LOG_LEVELS),
        )

    @property
    def threads_per_worker(self) -> int:
        """Return the CPU threads of one transcription. The library's own default of 4 slows 2 cores down."""
        return self.threads or max(1, _available_cpus() // self.workers)


def is_directory_name(model: str) -> bool:
    """Tell whether WHISPER_MODEL means a directory: an existing one, or spelt like a path."""
    return model.startswith(("/", ".", "~")) or os.path.isdir(model)  # noqa: PTH112 -- Path's raises if it may not look


def _name_of(model: str) -> str:
    # Not Path's own expanduser, which raises for a user that does not exist.
    if not is_directory_name(model):
        return model
    return Path(os.path.realpath(os.path.expanduser(model))).name  # noqa: PTH111


def _available_cpus() -> int:
    """Return the CPUs this process may use: its affinity, and in a container its quota (cgroup v2)."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2: the affinity is all there is to know
    return cpus
