"""Six hours of speech in one request: memory over the loaded model (whisper-tiny)."""

from collections.abc import Sequence

from bench.recordings import NAMES, joined
from bench.stand import Stand
from bench.table import Row
from bench.whisper import Server, models, word_error_percent

TITLE = "Speech server: six hours in one request (whisper-tiny)"

_HOURS = 6.0
_MEMORY_MB = 400.0


def measure(hours: float = _HOURS, names: Sequence[str] = NAMES) -> list[Row]:
    """Return the rows, from `names` joined. Raises Missing without a model, or jiwer."""
    with Stand() as stand:
        speech = joined(stand.new_directory(), hours * 3600, names)
        limits = {"MAX_UPLOAD": "2GB", "MAX_AUDIO": "24h"}
        server = Server(stand, models(stand, ["tiny"])["tiny"], limits)
        server.wait_until_ready()
        loaded_mb = server.process.rss_bytes / 1e6
        server.process.reset_peak()
        heard = server.transcribe(speech.path)
        peak_mb = server.process.peak_bytes / 1e6
        percent = word_error_percent(speech.words, heard.text)
        server.process.end()
    return [
        Row(
            "memory over the loaded model",
            peak_mb - loaded_mb,
            "MB",
            _MEMORY_MB,
            f"loaded {loaded_mb:.0f} MB",
        ),
        Row("speed", speech.seconds / heard.seconds, "times real time", note=f"{heard.seconds / 60:.1f} min"),
        Row("word error rate", percent, "%"),
    ]
