"""Word error rate on the recordings in `examples/`, and what joining recordings does to the text."""

from collections.abc import Sequence

from bench.recordings import NAMES, joined, single
from bench.stand import CORES, Stand
from bench.table import Row
from bench.whisper import SIZES, Library, Server, bare_library, models, word_error_percent

TITLE = "Speech server: word error rate"

_BASE_PERCENT = 5.0
_COPIES = 10
_READER = "austen"


def measure(copies: int = _COPIES, names: Sequence[str] = NAMES, sizes: Sequence[str] = SIZES) -> list[Row]:
    """Return the rows, of `names` and models of `sizes`. Raises Missing without a model, or jiwer."""
    rows = []
    with Stand() as stand:
        for name, model in models(stand, sizes).items():
            with bare_library(model, len(CORES)) as library:
                server = Server(stand, model)
                server.wait_until_ready()
                rows.append(_all(name, server, names))
                alone = {each: [each] for each in names}
                paragraph = {"the reader's sentences": [each for each in names if each.startswith(_READER)]}
                for what, joined_up in {**paragraph, **alone}.items():
                    rows.append(
                        _repeated(
                            f"{name}: {copies} times {what}", stand, (server, library), copies, joined_up
                        )
                    )
                server.process.end()
    return rows


def _all(name: str, server: Server, names: Sequence[str]) -> Row:
    said, heard = [], []
    for recording in map(single, names):
        said.append(recording.words)
        heard.append(server.transcribe(recording.path).text)
    percent = word_error_percent(" ".join(said), " ".join(heard))
    return Row(f"{name}: all recordings", percent, "%", _BASE_PERCENT if name == "base" else None)


def _repeated(
    figure: str, stand: Stand, pair: tuple[Server, Library], copies: int, names: Sequence[str]
) -> Row:
    """Compare copies of recordings, joined, with so many times the text of one."""
    length_s = sum(single(each).seconds for each in names)
    once = joined(stand.new_directory(), length_s, names)
    repeated = joined(stand.new_directory(), copies * once.seconds - 1, names)
    percents = [
        word_error_percent(
            " ".join([hearer.transcribe(once.path).text] * copies), hearer.transcribe(repeated.path).text
        )
        for hearer in pair
    ]
    limit = 0.0 if figure.startswith("base") else None
    return Row(f"{figure}, against itself", percents[0], "%", limit, f"bare {percents[1]:.1f} %")
