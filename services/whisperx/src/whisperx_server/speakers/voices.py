"""Compare voices by their embeddings: whose is whose, and what a speaker is called.

Pure. An embedding is a vector of a voice, of any length; two are as alike as the cosine of the angle between them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Embeddings = NDArray[np.float32]
"""One a row."""


def unit(embeddings: ArrayLike) -> Embeddings:
    """Return them at length 1, which compares them by angle; what has no length, or is no number, is left at 0."""
    rows = np.nan_to_num(np.asarray(embeddings, np.float32))
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)


def matched(
    speakers: Mapping[str, Embeddings], known: Sequence[tuple[str, Embeddings]], least: float
) -> dict[str, str]:
    """Return the name of each speaker that is known: those most alike first, each at least `least`, each name once."""
    if not speakers or not known:
        return {}
    labels = list(speakers)
    alike = unit(list(speakers.values())) @ unit([voice for _, voice in known]).T
    names: dict[str, str] = {}
    for row, column in zip(*np.unravel_index(np.argsort(-alike, axis=None), alike.shape), strict=True):
        label, name = labels[row], known[column][0]
        if alike[row, column] >= least and label not in names and name not in names.values():
            names[label] = name
    return names
