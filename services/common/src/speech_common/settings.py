"""The settings of a speech server, read once from the environment. Imports nothing heavy: it runs before listening.

Each service adds its own (`_own`), as fields of a subclass.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from speech_common.environment import Environment, SettingError
from speech_common.keys import ApiKeys

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
# Programs written for OpenAI's API ask for this model, whatever the server runs.
DEFAULT_ALIAS = "whisper-1"
# What travels in forms, URLs and log lines as it is, and is no hidden directory.
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
NAME_RULE = "at most 100 letters, digits, and . _ + -, and begins with a letter or digit"
_DOWNLOADS = ("sizes", "none")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSettings(ABC):
    """What every speech server can be told; each field names its environment variable."""

    DEFAULT_PORT: ClassVar[int]

    model: str
    """WHISPER_MODEL: a directory in CTranslate2 format, or a name on the Hugging Face hub. Default `base`."""
    model_name: str
    """WHISPER_MODEL_NAME: the name clients use. Default: the hub name, or the directory's own name."""
    models_dir: Path | None
    """WHISPER_MODELS_DIR: a directory of further models, each a directory in CTranslate2 format. Default none."""
    aliases: Mapping[str, str]
    """WHISPER_ALIASES: further names, as `name=model,name=model`. `whisper-1` always means the default model."""
    models_loaded: int
    """WHISPER_MODELS_LOADED: models in memory at a time; the one idle longest makes room. Default 1."""
    downloads: str
    """WHISPER_DOWNLOADS: what a request may have downloaded: `sizes` (tiny to large-v3, turbo, and what WHISPER_ALIASES
    names on the Hugging Face hub), or `none`. Default `sizes`."""
    device: str
    """WHISPER_DEVICE: `auto` (CUDA where it works, else the CPU), `cpu` or `cuda`."""
    compute_type: str
    """WHISPER_COMPUTE_TYPE: default int8 on the CPU, on CUDA float16 if it can (`auto`)."""
    threads: int
    """WHISPER_THREADS: CPU threads of one transcription; 0 shares the CPUs among the workers."""
    workers: int
    """WHISPER_WORKERS: transcriptions at a time; the others wait their turn. Default 1."""
    queue_limit: int
    """WHISPER_QUEUE: recordings that may wait for a worker; more are refused with 503. Default 32."""
    load_wait_s: float
    """WHISPER_LOAD_WAIT: how long a request waits for the model, then 503. Default 2m."""
    max_upload_bytes: int
    """MAX_UPLOAD: the largest request body. Default 500MB."""
    max_audio_s: float
    """MAX_AUDIO: the longest recording. Default 4h."""
    api_keys: ApiKeys
    """API_KEYS: keys that open the server, separated by commas; API_KEYS_FILE: a file of them, one a line. Default none:
    everybody may ask."""
    cors_origins: tuple[str, ...]
    """CORS_ORIGINS: origins whose pages may ask, separated by commas, or `*`. Default none."""
    job_keep_s: float
    """JOB_KEEP: how long the result of a `Prefer: respond-async` job stays in memory. Default 24h."""
    job_hold_s: float
    """JOB_HOLD: how long a result that nobody fetched keeps the server busy (`/health/busy`). Default 1h."""
    shutdown_s: float
    """SHUTDOWN_TIMEOUT: how long open requests may take to end after SIGTERM. Default 5s."""
    host: str
    """HOST: the address to listen on. Default 127.0.0.1."""
    port: int
    """PORT: the service's own by default; 0 takes a free one, which the log names."""
    log_level: str
    """LOG_LEVEL: DEBUG also logs health requests."""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Self:
        """Read and check all variables. Raises SettingError: which variable, and what is accepted."""
        env = Environment(variables)
        model = env.text("WHISPER_MODEL", "base")
        model_name = env.text("WHISPER_MODEL_NAME", _name_of(model))
        return cls(
            model=model,
            model_name=model_name,
            models_dir=_models_dir(env),
            aliases=_aliases(env, model_name),
            models_loaded=env.integer("WHISPER_MODELS_LOADED", 1, 1, 64),
            downloads=env.choice("WHISPER_DOWNLOADS", "sizes", _DOWNLOADS),
            device=env.choice("WHISPER_DEVICE", "auto", _DEVICES),
            compute_type=env.choice("WHISPER_COMPUTE_TYPE", "auto", _COMPUTE_TYPES),
            threads=env.integer("WHISPER_THREADS", 0, 0, 1024),
            workers=env.integer("WHISPER_WORKERS", 1, 1, 64),
            queue_limit=env.integer("WHISPER_QUEUE", 32, 0, 10_000),
            load_wait_s=env.duration_s("WHISPER_LOAD_WAIT", "2m"),
            max_upload_bytes=env.size_bytes("MAX_UPLOAD", "500MB"),
            max_audio_s=env.duration_s("MAX_AUDIO", "4h"),
            api_keys=ApiKeys.read(env.text("API_KEYS", ""), env.text("API_KEYS_FILE", "")),
            cors_origins=env.origins("CORS_ORIGINS"),
            job_keep_s=env.duration_s("JOB_KEEP", "24h"),
            job_hold_s=env.duration_s("JOB_HOLD", "1h"),
            shutdown_s=env.duration_s("SHUTDOWN_TIMEOUT", "5s"),
            host=env.text("HOST", "127.0.0.1"),
            port=env.integer("PORT", cls.DEFAULT_PORT, 0, 65535),
            log_level=env.choice("LOG_LEVEL", "INFO", _LOG_LEVELS),
            **cls._own(env),
        )

    @classmethod
    @abstractmethod
    def _own(cls, env: Environment) -> dict[str, Any]:
        """Read what only this service has, as keyword arguments. Raises SettingError."""

    @property
    def threads_per_worker(self) -> int:
        """Return the CPU threads of one transcription. The library's own default of 4 slows 2 cores down."""
        return self.threads or max(1, _available_cpus() // self.workers)


def is_directory_name(model: str) -> bool:
    """Tell whether WHISPER_MODEL means a directory: an existing one, or spelt like a path."""
    return model.startswith(("/", ".", "~")) or os.path.isdir(model)  # noqa: PTH112 -- Path's raises if it may not look


def _models_dir(env: Environment) -> Path | None:
    value = env.text("WHISPER_MODELS_DIR", "")
    if not value:
        return None
    if not os.path.isdir(value):  # noqa: PTH112 -- Path's raises if it may not look
        raise SettingError("WHISPER_MODELS_DIR", value, "an existing directory that this user may read")
    return Path(value)


def _aliases(env: Environment, model_name: str) -> Mapping[str, str]:
    """Read `name=model,name=model`. Whether there is such a model shows when it is asked for: it may come later."""
    aliases = {DEFAULT_ALIAS: model_name} if model_name != DEFAULT_ALIAS else {}
    given = [each.strip() for each in env.text("WHISPER_ALIASES", "").split(",") if each.strip()]
    for each in given:
        alias, equals, target = (part.strip() for part in each.partition("="))
        if not equals or not MODEL_NAME.fullmatch(alias) or not target:
            raise SettingError("WHISPER_ALIASES", each, f"name=model,name=model; a name has {NAME_RULE}")
        if alias in aliases or alias == model_name:
            raise SettingError("WHISPER_ALIASES", each, f"names that are not taken; {alias} is")
        aliases[alias] = target
    for alias, target in aliases.items():
        if target in aliases:
            raise SettingError(
                "WHISPER_ALIASES", f"{alias}={target}", f"names of models, and {target} is an alias"
            )
    return aliases


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
