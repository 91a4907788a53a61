"""Word error rate on the recordings in `examples/`, and what joining recordings does to the text."""

from collections.abc import Sequence

from bench.recordings import NAMES, joined, single
from bench.stand import Stand
from bench.table import Row
from bench.whisper import SIZES, Server, models, word_error_percent

TITLE = "Speech server: word error rate"

_BASE_PERCENT = 5.0
_COPIES = 10


def measure(copies: int = _COPIES, names: Sequence[str] = NAMES, sizes: Sequence[str] = SIZES) -> list[Row]:
    """Return the rows, of `names` and models of `sizes`. Raises Missing without a model, or jiwer."""
    rows = []
    with Stand() as stand:
        for name, model in models(stand, sizes).items():
            server = Server(stand, model)
            server.wait_until_ready()
            said, heard = [], []
            for recording in map(single, names):
                said.append(recording.words)
                heard.append(server.transcribe(recording.path).text)
            percent = word_error_percent(" ".join(said), " ".join(heard))
            limit = _BASE_PERCENT if name == "base" else None
            rows.append(Row(f"{name}: all recordings", percent, "%", limit))
            for one in names:
                alone = server.transcribe(single(one).path).text
                repeated = joined(stand.new_directory(), (copies - 0.5) * (single(one).seconds + 0.4), [one])
                together = server.transcribe(repeated.path).text
                percent = word_error_percent(" ".join([alone] * copies), together)
                rows.append(
                    Row(
                        f"{name}: {copies} times {one}, against itself",
                        percent,
                        "%",
                        0.0 if name == "base" else None,
                    )
                )
            server.process.end()
    return rows
