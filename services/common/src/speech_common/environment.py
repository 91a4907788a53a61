"""Read settings from environment variables. Imports nothing heavy: it runs before the socket listens."""

import math
import re
from collections.abc import Collection, Mapping

_SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_DURATION_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_HIGHEST_SIZE_BYTES = 2**60
_LONGEST_S = 8760 * 3600.0


class SettingError(Exception):
    """An environment variable carries something that cannot be used."""

    def __init__(self, name: str, value: str, accepted: str) -> None:
        super().__init__(f"{name}={value!r} cannot be used. Accepted: {accepted}.")
        self.name = name
        self.value = value
        self.accepted = accepted


class Environment:
    """Typed reading of a mapping of variables. An empty value counts as not set, as compose files leave it."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, name: str, default: str) -> str:
        """Return the value without surrounding white space."""
        return self._variables.get(name, "").strip() or default

    def choice(self, name: str, default: str, accepted: Collection[str]) -> str:
        """Return one of `accepted`."""
        value = self.text(name, default)
        if value not in accepted:
            raise SettingError(name, value, ", ".join(accepted))
        return value

    def integer(self, name: str, default: int, lowest: int, highest: int) -> int:
        """Return a whole number within the bounds, both included."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"-?\d{1,18}", value) or not lowest <= int(value) <= highest:
            raise SettingError(name, value, f"a whole number from {lowest} to {highest}")
        return int(value)

    def size_bytes(self, name: str, default: str) -> int:
        """Return bytes from `500MB`, `4GiB` or a plain number."""
        value = self.text(name, default)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value)
        unit = _SIZE_UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None or not 1 <= float(match[1]) * unit < _HIGHEST_SIZE_BYTES:
            raise SettingError(name, value, "a size such as 500MB, 4GiB or a number of bytes")
        return int(float(match[1]) * unit)

    def duration_s(self, name: str, default: str) -> float:
        """Return seconds from `90s`, `2m`, `1h` or a plain number."""
        value = self.text(name, default)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)", value)
        duration_s = float(match[1]) * _DURATION_UNITS_S[match[2]] if match else math.inf
        if duration_s > _LONGEST_S:
            raise SettingError(
                name, value, "a duration such as 90s, 2m or a number of seconds, at most 8760h"
            )
        return duration_s

    def origins(self, name: str) -> tuple[str, ...]:
        """Return origins, separated by commas: `https://app.example.org`, `tauri://localhost`, or `*` for all of them."""
        given = tuple(origin.strip() for origin in self.text(name, "").split(",") if origin.strip())
        for origin in given:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.\-]*://[a-z0-9._\-\[\]:]+", origin):
                raise SettingError(
                    name, origin, "origins such as https://app.example.org, or *, lower case, no path"
                )
        return given
