"""How fast the speech server is, beside the bare library with the same settings: in turn, several rounds.

`sequential` is `batch_size=1`, window after window as the library does it, so the work is the same; `batched` is what
a recording of ten minutes gets when nothing is asked for. There every round has the recordings in an order of its own:
what a model makes of it depends on where windows begin and end, and one order would show luck as skill.

Times real time: seconds of speech for each second of work.
"""

import random
from collections.abc import Sequence

from bench.recordings import NAMES, Recording, joined
from bench.stand import CORES, Stand
from bench.table import Row, median
from bench.whisper import SIZES, Heard, Library, Server, bare_library, models, word_error_percent

TITLE = "Speech server: speed, beside the bare library"

_SEQUENTIAL, _BATCHED = 0.97, 1.5
# So long that window by window has seams too.
_SHORT_S, _LONG_S = 360.0, 600.0


def measure(
    rounds: int = 3,
    short_s: float = _SHORT_S,
    long_s: float = _LONG_S,
    names: Sequence[str] = NAMES,
    sizes: Sequence[str] = SIZES,
) -> list[Row]:
    """Return the rows, from `names` joined and models of `sizes`. Raises Missing without a model, or jiwer."""
    rows = []
    orders = [random.Random(number).sample(names, len(names)) for number in range(rounds)]
    with Stand() as stand:
        short = joined(stand.new_directory(), short_s, names)
        long = [joined(stand.new_directory(), long_s, order) for order in orders]
        for name, model in models(stand, sizes).items():
            with bare_library(model, len(CORES)) as library:
                server = Server(stand, model)
                server.wait_until_ready()
                server.transcribe(short.path)  # uncounted: what is loaded on first use
                loaded_mb = server.process.rss_bytes / 1e6
                pair = library, server
                rows += _rows(f"{name}, sequential", [short] * rounds, pair, _SEQUENTIAL, batch_size="1")
                rows += _rows(f"{name}, batched", long, pair, _BATCHED)
                peak_mb = server.process.peak_bytes / 1e6
                note = f"{loaded_mb:.0f} MB after the first transcript"
                rows.append(Row(f"{name}: peak memory", peak_mb, "MB", note=note))
                server.process.end()
    return rows


def _rows(
    name: str, rounds: Sequence[Recording], pair: tuple[Library, Server], least: float, **fields: str
) -> list[Row]:
    library, server = pair
    bare: list[Heard] = []
    ours: list[Heard] = []
    for speech in rounds:
        bare.append(library.transcribe(speech.path))
        ours.append(server.transcribe(speech.path, **fields))
    bare_s, ours_s = (median(heard.seconds for heard in column) for column in (bare, ours))
    shares = [other.seconds / one.seconds for one, other in zip(bare, ours, strict=True)]
    words = " ".join(speech.words for speech in rounds)
    bare_wer, ours_wer = (
        word_error_percent(words, " ".join(heard.text for heard in column)) for column in (bare, ours)
    )
    length_s = median(speech.seconds for speech in rounds)
    # What is limited is how much slower it is: a table's limits are all "at most".
    return [
        Row(f"{name}: speed", length_s / ours_s, "times real time", note=f"bare {length_s / bare_s:.1f}"),
        Row(
            f"{name}: time of the bare library's",
            median(shares),
            "times",
            1 / least,
            f"as fast: {', '.join(f'{1 / share:.2f}' for share in shares)} times",
        ),
        Row(f"{name}: word error rate", ours_wer, "%", max(bare_wer, 0.01), f"bare {bare_wer:.2f} %"),
    ]
