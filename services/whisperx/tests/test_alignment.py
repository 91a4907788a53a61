"""whisperx's own alignment and the loading of its models, with wav2vec2 models of random weights that the tests make."""

import logging
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from whisperx_server.alignment import Aligner, Aligners
from whisperx_server.asr import hear
from whisperx_server.said import Heard

RATE = 16000
LETTERS = "abcdefghijklmnopqrstuvwxyz'"


def words_of(sentences):
    return [word for sentence in sentences for word in sentence.words]


def check_times(words, duration_s):
    """They rise, and are numbers within the stretch."""
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(0.0 <= time <= duration_s + 0.001 for time in times)
    assert all(0.0 <= word.probability <= 1.0 for word in words)


def test_text_is_laid_on_the_audio_by_a_model_in_transformers_format(aligners, models_dir, recordings):
    aligner = aligners(models_dir).find("en")
    assert aligner.name == "tiny-wav2vec20"
    [window] = recordings.windows(recordings.samples("austen-0880"))
    sentences = aligner.sentences(
        window, Heard(" He was not an ill-disposed young man. So Mr. Dashwood said.", -0.1)
    )
    assert [sentence.text for sentence in sentences] == [
        " He was not an ill-disposed young man.",
        " So Mr. Dashwood said.",
    ]
    words = words_of(sentences)
    check_times(words, window.duration_s)
    assert [word.word for word in words[3:6]] == [" an", " ill-disposed", " young"]
    assert all(word.start < word.end and word.probability > 0.0 for word in words)
    assert [(each.start_s, each.end_s) for each in sentences] == [
        (each.words[0].start, each.words[-1].end) for each in sentences
    ]


class Spelling(torch.nn.Module):
    """Hears what it is told, in frames of 20 ms: stands in for a model that has learnt something."""

    def __init__(self, dictionary, spoken, frames):
        super().__init__()
        self._logits = torch.full((1, frames, len(dictionary)), -10.0)
        self._logits[:, :, 0] = 5.0
        for letter, at_s in spoken:
            frame = round(at_s / 0.02)
            self._logits[0, frame, dictionary[letter]] = 20.0

    def forward(self, waveform, lengths=None):
        return self._logits, None


def spelling_aligner(spoken, duration_s, language="en"):
    dictionary = {token: at for at, token in enumerate(["-", "|", *LETTERS, "今", "日", "は"])}
    model = Spelling(dictionary, spoken, round(duration_s / 0.02))
    return Aligner(
        "spelling", model, {"language": language, "dictionary": dictionary, "type": "torchaudio"}, "cpu"
    )


def test_words_are_where_the_model_hears_their_letters(recordings):
    [window] = recordings.windows(np.zeros(2 * RATE, np.float32))
    spoken = [("h", 0.5), ("e", 0.54), ("|", 0.9), ("w", 1.2), ("a", 1.24), ("s", 1.3)]
    words = words_of(spelling_aligner(spoken, 2.0).sentences(window, Heard(" He was.", -0.1)))
    assert [word.word for word in words] == [" He", " was."]
    assert [word.start for word in words] == pytest.approx([0.5, 1.2], abs=0.05)
    assert [word.probability > 0.9 for word in words] == [True, False]  # nothing is heard of the full stop


def test_word_that_the_model_cannot_spell_is_where_something_else_is_heard(recordings):
    [window] = recordings.windows(np.zeros(2 * RATE, np.float32))
    number = [("n", 0.7), ("i", 0.8), ("n", 0.9), ("e", 1.0)]
    spoken = [("h", 0.5), ("e", 0.54), ("|", 0.6), *number, ("|", 1.1), ("w", 1.2), ("a", 1.24), ("s", 1.3)]
    words = words_of(spelling_aligner(spoken, 2.0).sentences(window, Heard(" he 1984 was", -0.1)))
    assert [word.word for word in words] == [" he", " 1984", " was"]
    assert [word.start for word in words] == pytest.approx([0.5, 0.7, 1.2], abs=0.03)


def test_language_without_spaces_is_aligned_letter_by_letter(recordings):
    [window] = recordings.windows(np.zeros(2 * RATE, np.float32))
    aligner = spelling_aligner([("今", 0.5), ("日", 0.8), ("は", 1.2)], 2.0, "ja")
    words = words_of(aligner.sentences(window, Heard("今日は", -0.1)))
    assert [word.word for word in words] == ["今", "日", "は"]
    assert [word.start for word in words] == pytest.approx([0.5, 0.8, 1.2], abs=0.03)


@pytest.mark.parametrize("samples", [1, 399, 800, 2 * RATE])
@pytest.mark.parametrize(
    "text",
    [
        " 12",
        " x",
        " — | —",
        "今日は",
        " " + "a" * 3000,
        " hello" * 400,
        " a b",
        " é ñ “ ”",
        " one\ntwo  three ",
    ],
)
def test_every_text_gets_rising_times_on_every_audio(aligners, models_dir, recordings, text, samples):
    [window] = recordings.windows(recordings.samples("two-speakers")[:samples])
    words = words_of(aligners(models_dir).find("en").sentences(window, Heard(text, -0.1)))
    check_times(words, window.duration_s)
    written = "".join(word.word for word in words).replace("|", "")
    assert "".join(written.split()) == "".join(text.replace("|", "").split())


def test_text_longer_than_its_audio_is_spread_over_the_voice(aligners, models_dir, recordings):
    [window] = recordings.windows(recordings.samples("austen-0880")[: 2 * RATE])
    voice_s = np.flatnonzero(window.likely >= 0.5)[[0, -1]] * 0.032
    words = words_of(aligners(models_dir).find("en").sentences(window, Heard(" hello" * 400, -0.1)))
    assert (words[0].start, words[-1].end) == pytest.approx((voice_s[0], voice_s[1]), abs=0.05)
    assert {word.probability for word in words} == {0.0}


def test_no_text_has_no_sentences(aligners, models_dir, recordings):
    [window] = recordings.windows(np.zeros(RATE, np.float32))
    assert [aligners(models_dir).find("en").sentences(window, Heard(text, 0.0)) for text in ("", "  ")] == [
        [],
        [],
    ]


def test_checkpoint_of_torchaudio_is_loaded_under_its_own_name(aligners, tmp_path, recordings):
    bundle = torchaudio.pipelines.VOXPOPULI_ASR_BASE_10K_FR
    directory = tmp_path / "fr"
    directory.mkdir()
    checkpoint = directory / bundle._path
    torch.manual_seed(0)
    # It may have the classes too that torchaudio leaves out of the labels.
    extra = len(bundle._remove_aux_axis or ())
    model = torchaudio.models.wav2vec2_model(
        **bundle._params | {"aux_num_out": bundle._params["aux_num_out"] + extra}
    )
    torch.save(model.state_dict(), checkpoint)
    try:
        aligner = aligners(tmp_path).find("fr")
        assert aligner.name == "VOXPOPULI_ASR_BASE_10K_FR"
        [window] = recordings.windows(recordings.samples("austen-0880")[: 2 * RATE])
        words = words_of(aligner.sentences(window, Heard(" Il était là.", -0.1)))
        assert [word.word for word in words] == [" Il", " était", " là."]
        check_times(words, window.duration_s)
    finally:
        checkpoint.unlink()  # 380 MB


def test_nothing_is_written_to_the_output_and_no_text_to_the_log(
    aligners, models_dir, recordings, capfd, caplog
):
    [window] = recordings.windows(recordings.samples("austen-0880")[:RATE])
    with caplog.at_level(logging.INFO):
        aligner = aligners(models_dir).find("en")
        aligners(models_dir).find("ja")
        aligner.sentences(window, Heard(" confidential" * 100, -0.1))
    assert "confidential" not in caplog.text
    assert capfd.readouterr().out == ""


def test_sentences_follow_each_other(aligners, models_dir, recordings):
    [window] = recordings.windows(recordings.samples("two-speakers"))
    text = " " + recordings.said("two-speakers").strip()
    sentences = aligners(models_dir).find("en").sentences(window, Heard(text, -0.1))
    assert len(sentences) == 5
    assert all(before.end_s <= after.start_s for before, after in pairwise(sentences))


def present_model():
    """Say where a real model for English is: in ALIGN_MODELS_DIR, or where torchaudio has put its own; None without."""
    models = os.environ.get("ALIGN_MODELS_DIR")
    here = Aligners(Path(models) if models else None, "cpu", downloads_allowed=False)
    return here.find("en")


def voice_starts(samples, turns):
    """Return when in each turn its voice begins, by its loudness in steps of 10 ms: a click or a breath is none."""
    step, lasting = RATE // 100, np.ones(6)
    for start, end in turns:
        turn = samples[int(start * RATE) : int(end * RATE)]
        loudness = np.sqrt(np.mean(turn[: turn.size // step * step].reshape(-1, step) ** 2, axis=1))
        loud = loudness > 0.15 * np.percentile(loudness, 95)
        yield start + np.flatnonzero(np.convolve(loud, lasting, "valid") == lasting.size)[0] / 100


def test_utterances_start_within_50_ms_with_a_real_model(recordings, whisper):
    aligner = present_model()
    if aligner is None:
        pytest.skip("no alignment model for English: not in ALIGN_MODELS_DIR, nor in torch's own cache")
    samples = recordings.samples("two-speakers")
    starts = []
    for window in recordings.windows(samples):
        [heard] = hear_plainly(whisper, window)
        starts += [window.recorded(said.start_s, said.end_s)[0] for said in aligner.sentences(window, heard)]
    assert starts == pytest.approx(list(voice_starts(samples, recordings.turns("two-speakers"))), abs=0.05)


def hear_plainly(whisper, window):
    return hear(
        whisper,
        [window],
        language="en",
        task="transcribe",
        prompt=None,
        hotwords=None,
        beam_size=5,
        times_words=False,
        check=lambda: None,
    )


def test_where_a_voice_begins_is_told_by_its_loudness(recordings):
    """What the test above compares with, on a machine that has no model too."""
    samples = recordings.samples("two-speakers")
    starts = list(voice_starts(samples, recordings.turns("two-speakers")))
    assert starts == pytest.approx([0.19, 7.68, 11.66, 14.88, 17.0], abs=0.07)
