"""Where the configuration is, and the admin socket.

Reads that one value by itself: the models take 0.2 s to load, and `status` must also work while the file is
being edited into something broken. `serve` and `check` are the ones who judge it.
"""

import json
import os
import re
from pathlib import Path

SYSTEM_CONFIG = Path("/etc/autostart/config.json")
LOCAL_CONFIG = Path("config.json")
DEFAULT_SOCKET = Path("/run/autostart/admin.sock")
"""The default of `admin.socket` in the models; a test holds the two together."""


_LOOKS_LIKE_THE_SOCKET = re.compile(r"""\bsocket["']?\s*:\s*["']?([^"'\s,{}]+)["'\s,}]""")


class BrokenConfig(Exception):
    """The configuration does not tell where the admin socket is; `path` is the file."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"{path}: {reason}")


def config_path(given: str | None) -> Path:
    """Return `given`, else $AUTOSTART_CONFIG, else the system's file, else the one here."""
    if named := given or os.environ.get("AUTOSTART_CONFIG"):
        return Path(named)
    # os.path says no, and Path.exists raises, where the directory may not be searched.
    has_local, has_system = os.path.exists(LOCAL_CONFIG), os.path.exists(SYSTEM_CONFIG)  # noqa: PTH110
    return LOCAL_CONFIG if has_local and not has_system else SYSTEM_CONFIG


def admin_socket(config: str | None, socket: str | None) -> Path:
    """Return the path of the admin socket. Raises BrokenConfig where the configuration cannot be read."""
    if socket is not None:
        return Path(socket)
    path = config_path(config)
    is_named = bool(config or os.environ.get("AUTOSTART_CONFIG"))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, PermissionError) as exc:
        if is_named:
            raise BrokenConfig(path, f"cannot be read: {exc.strerror}") from exc
        return DEFAULT_SOCKET
    except OSError as exc:
        raise BrokenConfig(path, f"cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise BrokenConfig(path, f"is not UTF-8 text (byte {exc.start})") from exc
    try:
        named = _named(_parse(text, path))
    except (ValueError, RecursionError) as exc:
        # Whoever asks for a reload now is to hear from autostart itself what is wrong with the file.
        match = _LOOKS_LIKE_THE_SOCKET.search(text)
        if match is None and is_named:
            reason = " ".join(str(exc).split())
            told = "cannot be understood, so the admin socket is not known; give --socket to do without"
            raise BrokenConfig(path, f"{told} ({reason})") from exc
        named = match[1] if match else None
    if not isinstance(named, str):
        return DEFAULT_SOCKET
    try:
        os.fsencode(named)
    except UnicodeEncodeError as exc:
        raise BrokenConfig(path, "admin.socket holds half a character") from exc
    # As in the models: what is relative begins at the configuration's directory.
    return path.absolute().parent / named


def _named(document: object) -> object:
    admin = document.get("admin") if isinstance(document, dict) else None
    return admin.get("socket") if isinstance(admin, dict) else None


def _parse(text: str, path: Path) -> object:
    if path.suffix not in {".yaml", ".yml"}:
        return json.loads(text)
    import yaml  # noqa: PLC0415 - 40 ms that a JSON file does not need

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc
