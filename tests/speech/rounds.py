"""Load, use and unload models in turn, and print the resident MB with each loaded and after. Run by test_registry.py.

Usage: rounds.py DIRECTORY COUNT, where DIRECTORY has the models tiny and base.
"""

import sys
from pathlib import Path

import numpy as np
from speech_common.models import loading
from speech_common.models.catalogue import Catalogue
from whisper_server.model import Model
from whisper_server.settings import Settings


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main() -> None:
    settings = Settings.from_environment(
        {"WHISPER_MODEL": "tiny", "WHISPER_MODELS_DIR": sys.argv[1], "WHISPER_THREADS": "2"}
    )
    catalogue = Catalogue(settings)
    catalogue.found_default(loading.locate_default(settings))
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)

    held = []  # as a traceback or a job may hold them

    def use(name: str) -> float:
        model = loading.load(catalogue.find(name), settings, Model)
        held.append(model)
        list(model.transcribe(noise, language="en", temperature=0, max_new_tokens=8)[0])
        loaded = resident_mb()
        loading.unload(model)
        return loaded

    use("tiny")
    for _ in range(int(sys.argv[2])):
        use("tiny")
        loaded = use("base")
        print(f"{loaded:.1f} {resident_mb():.1f}")


main()
