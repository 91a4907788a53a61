"""How many voices there are among embeddings, and which embedding is whose. Pure; scikit-learn is imported where it is needed.

Voices are groups of embeddings by average linkage: the two groups whose members are most alike, on the average of all pairs,
become one, again and again, until no two are alike enough. The average of the cosines is the product of the groups' means,
so what was grouped before goes on as one mean; a long recording is grouped part by part, and then its groups.

senko's own clusterings (spectral, and UMAP with HDBSCAN from 20 minutes on) are not used. Measured on the voices of
`pocketsphinx-testdata`, with senko 0.2.2: below ten embeddings they say one voice, whatever it is; what somebody says in less
than four goes to another; one voice in nine short recordings became eight, and two voices that say the same eight times
became one, as each embedding only knows its six nearest. Average linkage was right in all of these, and needs no compilation.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from whisperx_server.speakers.voices import Embeddings, unit

Labels = NDArray[np.int64]
"""The number of each embedding's voice, from 0."""
# Groups that are less alike than this are two voices. On those recordings, in windows of at most 1.5 s, one voice was on the
# average 0.64 to 0.84 alike, also over several recordings, and two voices 0.38 to 0.43.
_ONE_VOICE = 0.5
# A voice of its own is heard for 0.8 s, or for 3 s of a longer recording: a laugh, or two at once, make embeddings too.
_SHORTEST_S = 0.8
_SHORT_S = 3.0
_SHORT_SHARE = 0.05
# As many embeddings are grouped at once; that takes 0.1 s.
_PART = 500
_HARDLY_FEWER = 0.9


def clustered(
    embeddings: Embeddings,
    heard_s: NDArray[np.float64],
    at_least: int | None = None,
    at_most: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Labels:
    """Return whose each embedding is, the voices numbered by their first. `heard_s` is how long each was listened to.

    Where there are more or fewer voices than the bounds say, the nearest number within them is made: of too many, those most
    alike become one; too few are told apart anew. There are never more than embeddings.
    """
    voices = unit(embeddings)
    labels = np.arange(len(voices))
    while (count := int(labels.max(initial=-1)) + 1) > _PART:
        check()
        labels = _linked_in_parts(voices, labels)
        if (
            labels.max() + 1 > _HARDLY_FEWER * count
        ):  # hours of what is no voice: only the longest are told apart
            labels = _longest(voices, labels, heard_s)
    labels = _linked(voices, labels, _ONE_VOICE)
    labels = _without_short(voices, labels, heard_s)
    if at_most is not None:
        labels = _linked(voices, labels, at_most=at_most)
    if at_least is not None and labels.max(initial=-1) + 1 < min(at_least, len(voices)):
        labels = _apart(voices, min(at_least, len(voices)))
    return labels


def _linked(voices: Embeddings, labels: Labels, least: float = np.inf, at_most: int | None = None) -> Labels:
    """Make one of two groups, those most alike first, while they are at least so much alike, or more than `at_most`."""
    count = int(labels.max(initial=-1)) + 1
    sums = np.zeros((count, voices.shape[1]))
    np.add.at(sums, labels, voices)
    sizes = np.bincount(labels, minlength=count).astype(float)
    means = sums / sizes[:, np.newaxis]
    alike = means @ means.T
    np.fill_diagonal(alike, -np.inf)
    into = np.arange(count)
    left = count
    while left > 1:
        first, second = sorted(np.unravel_index(int(alike.argmax()), alike.shape))
        if alike[first, second] < least and (at_most is None or left <= at_most):
            break
        sums[first] += sums[second]
        sizes[first] += sizes[second]
        row = sums @ sums[first] / (sizes * sizes[first])
        row[np.isneginf(alike[first])] = -np.inf  # itself, and those that are part of another
        alike[first], alike[:, first] = row, row
        alike[second], alike[:, second] = -np.inf, -np.inf
        into[into == second] = first
        left -= 1
    return _numbered(into[labels])


def _linked_in_parts(voices: Embeddings, labels: Labels) -> Labels:
    """Make one of two groups among those that follow each other, so many at once that their matrix is small."""
    linked = labels.copy()
    for first in range(0, int(labels.max()) + 1, _PART):
        part = (labels >= first) & (labels < first + _PART)
        linked[part] = first + _linked(voices[part], labels[part] - first, _ONE_VOICE)
    return _numbered(linked)


def _longest(voices: Embeddings, labels: Labels, heard_s: NDArray[np.float64]) -> Labels:
    """Keep as many groups as are told apart at once, and give the others to those they are most like."""
    return _given(voices, labels, np.sort(np.argsort(-np.bincount(labels, heard_s))[:_PART]))


def _without_short(voices: Embeddings, labels: Labels, heard_s: NDArray[np.float64]) -> Labels:
    """Give what is too short for a voice of its own to the one it is most like, if any is long enough."""
    spoken_s = np.bincount(labels, heard_s)
    shortest_s = max(_SHORTEST_S, min(_SHORT_S, _SHORT_SHARE * float(heard_s.sum())))
    kept = np.flatnonzero(spoken_s >= shortest_s)
    if not len(kept):
        kept = np.array([spoken_s.argmax()])
    return _given(voices, labels, kept)


def _given(voices: Embeddings, labels: Labels, kept: Labels) -> Labels:
    """Give what is in none of the groups that are kept to the one it is most like."""
    centres = unit([voices[labels == label].mean(axis=0) for label in kept])
    strays = ~np.isin(labels, kept)
    labels = labels.copy()
    labels[strays] = kept[(voices[strays] @ centres.T).argmax(axis=1)]
    return _numbered(labels)


def _apart(voices: Embeddings, count: int) -> Labels:
    from sklearn.cluster import KMeans  # noqa: PLC0415 -- a second

    tries = 10 if len(voices) <= _PART else 1  # of many, one takes seconds, and finds as much
    return _numbered(KMeans(count, n_init=tries, random_state=0).fit_predict(voices))


def _numbered(labels: "Labels | NDArray[np.int32]") -> Labels:
    """Number them from 0, in the order of their first appearance."""
    _, firsts, places = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(firsts))[places], np.int64)
