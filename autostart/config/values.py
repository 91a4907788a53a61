"""The kinds of values in a configuration, each with its check and with the words that say what is accepted.

The words stand in error messages, in the JSON schema and on the reference page. Imports `units` and nothing
else of ours. A check never repeats a value that may be a secret, and of others only the beginning.
"""

import ipaddress
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, ValidationInfo

from autostart.config.units import format_duration, format_size, parse_duration, parse_size

_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_ORIGIN = re.compile(
    r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._:\[\]-]+"
)  # RFC 6454 section 6.2: no path, no slash
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_TARGET = re.compile(r"/[!\"$-~]*")  # what may stand in a request line, without a fragment
_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")


@dataclass(frozen=True, slots=True)
class Words:
    """What is accepted, in words.

    `types` are those of the JSON schema, where pydantic cannot know them; `spell` writes a value as people do.
    """

    text: str
    types: tuple[str, ...] = ()
    spell: Callable[[Any], str] | None = None

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = dict(handler(core_schema))
        if self.types:
            schema["type"] = self.types[0] if len(self.types) == 1 else list(self.types)
        return schema | {"description": self.text}


def shown(value: object) -> str:
    """Return `value` as JSON spells it, cut to what fits in a line."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "…"


def normalise_host(value: str) -> str:
    """Return a Host header or host name as it is looked up: lower case, no port, no trailing dot.

    Source: RFC 9110 section 4.2.3 (host is case-insensitive), RFC 3986 section 3.2.2.
    """
    host = value.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].removesuffix(".")


def _duration(value: object) -> float:
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f"{shown(value)} is not a duration") from None


def _idle_duration(value: object) -> float:
    return float("inf") if value in ("never", float("inf")) else _duration(value)


def _size(value: object) -> int:
    try:
        return parse_size(value)
    except ValueError:
        raise ValueError(f"{shown(value)} is not a size") from None


def _host_name(value: object) -> str:
    if isinstance(value, str) and _HOST.fullmatch(value.strip().lower().removesuffix(".")):
        return normalise_host(value)
    raise ValueError(f"{shown(value)} is not a host name")


def _listen_address(value: object) -> str:
    if isinstance(value, str):
        if value.startswith("unix:/"):
            return value
        host, colon, port = value.rpartition(":")
        if colon and port.isascii() and port.isdigit() and int(port[:6]) < 65536:
            bracketed = host.startswith("[") and host.endswith("]")
            try:
                if ipaddress.ip_address(host.strip("[]")).version == (6 if bracketed else 4):
                    return value
            except ValueError:
                pass
    raise ValueError(f"{shown(value)} is not an address to listen on")


def _network(value: object) -> str:
    if value == "unix":
        return "unix"
    if isinstance(value, str):
        try:
            return str(ipaddress.ip_network(value))
        except ValueError:
            pass
    raise ValueError(f"{shown(value)} is not an IP network")


def _key_hash(value: object) -> str:
    if isinstance(value, str) and _HASH.fullmatch(value):
        return value
    raise ValueError("this is not the hash of a key")  # never repeats the value: it may be a key


def _status(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and (match := _STATUS.fullmatch(text)) and match[1] <= (match[2] or match[1]):
        return text
    raise ValueError(f"{shown(value)} is not a status or a range of statuses")


def _rooted(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{shown(value)} does not begin with a slash")
    if not _TARGET.fullmatch(value):
        raise ValueError(f"{shown(value)} holds what may not stand in a request line")
    return value


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError(f"{shown(value)} is not an origin")
    # As browsers send it: hosts in lower case, the identifiers of extensions as they are.
    return value.lower() if value.lower().startswith(("http://", "https://")) else value


def _token(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a name that HTTP knows")
    return value


def _path_pattern(value: str) -> str:
    if not value.startswith(("/", "*", "?", "[")):
        raise ValueError(f"{shown(value)} fits no path, for these begin with a slash")
    return value


def _beside_the_file(value: Path, info: ValidationInfo) -> Path:
    """Take a relative path from the directory of the configuration file, where there is a file."""
    return Path(info.context["directory"]) / value if info.context else value


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise ValueError(f"{shown(str(value))} is not an absolute path")
    return value


_DURATION_WORDS = '"90s", "15m", "1h30m" or a number of seconds'

Duration = Annotated[
    float, BeforeValidator(_duration), Words(_DURATION_WORDS, ("string", "number"), format_duration)
]
IdleDuration = Annotated[
    float,
    BeforeValidator(_idle_duration),
    Words(f'{_DURATION_WORDS}, or "never"', ("string", "number"), format_duration),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    Words('"500MB", "4GiB" or a number of bytes', ("string", "integer"), format_size),
]
HostName = Annotated[str, BeforeValidator(_host_name), Words("a host name without port")]
ListenAddress = Annotated[
    str, BeforeValidator(_listen_address), Words('"127.0.0.1:8890", "[::1]:8890" or "unix:/path"')
]
Network = Annotated[str, BeforeValidator(_network), Words('an IP network such as "10.0.0.0/8", or "unix"')]
KeyHash = Annotated[
    str, BeforeValidator(_key_hash), Words('"sha256:" and 64 hex digits, as `autostart hash-key` prints them')
]
Statuses = Annotated[str, BeforeValidator(_status), Words('"200" or "200-299"', ("string", "integer"))]
Port = Annotated[int, Field(ge=1, le=65535, strict=True), Words("a port number, 1 to 65535")]
Percent = Annotated[
    float, Field(gt=0, strict=True, allow_inf_nan=False), Words("a number above 0 such as 20 or 150.5")
]
Flag = Annotated[bool, Field(strict=True), Words("true or false")]
RootedPath = Annotated[str, AfterValidator(_rooted), Words('a path that begins with "/"')]
Origin = Annotated[
    str, AfterValidator(_origin), Words('"https://app.example.org" (no slash after it), "null" or "*"')
]
HeaderName = Annotated[str, AfterValidator(_token), Words('the name of a header, or "*"')]
Method = Annotated[str, AfterValidator(_token), AfterValidator(str.upper), Words('a method such as "GET"')]
PathPattern = Annotated[str, AfterValidator(_path_pattern), Words('a path such as "/favicon.ico" or "*.png"')]
FilePath = Annotated[
    Path, AfterValidator(_beside_the_file), Words("a path; a relative one begins at the configuration file")
]
AbsolutePath = Annotated[Path, AfterValidator(_absolute), Words("an absolute path")]
