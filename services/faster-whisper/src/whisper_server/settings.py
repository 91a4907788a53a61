"""What only this server can be told. Imports nothing heavy: it runs before listening."""

from dataclasses import dataclass
from typing import Any, ClassVar

from speech_common.environment import Environment
from speech_common.settings import ServerSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings(ServerSettings):
    """The server's settings; each names its environment variable."""

    DEFAULT_PORT: ClassVar[int] = 8001

    batch_size: int
    """WHISPER_BATCH_SIZE: windows of a long recording that are decoded at once; 1 decodes window by window. Default 0:
    on CUDA 16; on the CPU at most 4, as many as 250 MB are enough for (tiny 4, base 2, larger models 1)."""

    @classmethod
    def _own(cls, env: Environment) -> dict[str, Any]:
        return {"batch_size": env.integer("WHISPER_BATCH_SIZE", 0, 0, 64)}
