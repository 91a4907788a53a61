"""Header rules as pure functions: what is passed on, what is set, and what a request says about itself.

Owns everything about header fields that needs no I/O. Imports config and nothing else of ours.
"""

import ipaddress
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from multidict import CIMultiDict, CIMultiDictProxy

from autostart.config import Cors, Quiet

Headers = CIMultiDict[str]
AnyHeaders = CIMultiDict[str] | CIMultiDictProxy[str]

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110 section 7.6.1, with the older names of RFC 2616 section 13.5.1 that are still sent."""

_NEVER_FROM_STRANGERS = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"}
)
_SET_HERE = frozenset(
    {
        *("content-length", "expect", "host"),
        *("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"),
    }
)
_SINGLE_VALUED_ANSWER = "access-control-"
_MOST_ID_CHARS = 128
_NAME_CHARS = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_END_TO_END = frozenset(
    {"authorization", "content-encoding", "content-length", "content-type", "cookie", "host"}
)
"""Never dropped for being listed in Connection: what would arrive would be another request (RFC 9110 section 7.6.1)."""
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(:\d{0,5})?", re.ASCII)
"""Source: RFC 3986 section 3.2.2, without user information, with the port of RFC 9110 section 7.2."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, and how it reached us.

    `address` is the peer's own (an IP address, or "unix"), `client` the one that asks through it: the same,
    unless a trusted proxy says otherwise.
    """

    address: str
    trusted: bool
    client: str
    scheme: str


class TrustedProxies:
    """The networks whose X-Forwarded-* and X-Request-Id are believed; "unix" stands for any unix socket."""

    def __init__(self, networks: Iterable[str]) -> None:
        names = tuple(networks)
        self._unix = "unix" in names
        self._networks = tuple(ipaddress.ip_network(name) for name in names if name != "unix")
        self._trusts_address = lru_cache(maxsize=4096)(self._look_up)

    def trusts(self, address: str) -> bool:
        """Say whether this peer is believed."""
        return self._trusts_address(address)

    def _look_up(self, address: str) -> bool:
        if address == "unix":
            return self._unix
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip.version == network.version and ip in network for network in self._networks)

    def peer(self, address: str, headers: AnyHeaders) -> Peer:
        """Return who asks: behind trusted proxies, the last address in X-Forwarded-For that is not one of them."""
        if not self.trusts(address):
            return Peer(address, False, address, "http")
        client = address
        came_through = headers.getall("X-Forwarded-For", ())
        for hop in reversed(",".join(came_through).split(",") if came_through else ()):
            if not _is_address(hop := hop.strip()):
                break
            client = hop
            if not self.trusts(hop):
                break
        proto = headers.get("X-Forwarded-Proto", "").strip().lower()
        return Peer(address, True, client, proto if proto in {"http", "https"} else "http")


@lru_cache(maxsize=4096)
def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def split_target(target: str) -> tuple[str | None, str]:
    """Split a request target into authority and the rest, bytes as they came.

    The authority is None but for the absolute form, where it goes before Host (RFC 9112 section 3.2.2). Raises
    ValueError for what a gateway cannot forward: other schemes, the authority and the asterisk form.
    """
    if "#" in target:
        raise ValueError("the request target has a fragment")
    if target.startswith("/"):
        return None, target
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        raise ValueError("the request target is neither a path nor an http URL")
    end = min((at for at in map(rest.find, "/?") if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if not authority or "@" in authority:
        raise ValueError("the request target names no host")
    return authority, path if path.startswith("/") else f"/{path}"


def unforwardable(method: str, headers: AnyHeaders, version: tuple[int, int]) -> str:
    """Return why a request cannot be passed on as it was meant; empty where it can.

    Only the framing that both sides read in the same way is let through: a coding beside `chunked` would be lost
    with the header, and HTTP/1.0 has none (RFC 9112 section 6.1). aiohttp 3.14.5 takes a line without a version
    for HTTP/0.9, and reads headers behind it.
    """
    if version not in {(1, 0), (1, 1)}:
        return "HTTP/1.1 and HTTP/1.0 are spoken here"
    if method == "CONNECT":
        return "CONNECT is for proxies that a client has chosen, and this is none"
    codings = [coding.strip().lower() for coding in headers.getall("Transfer-Encoding", ())]
    if codings and (version == (1, 0) or codings != ["chunked"]):
        return "the only transfer coding that is known here is chunked, in HTTP/1.1"
    hosts = headers.getall("Host", ())
    if len(hosts) != 1:  # RFC 9112 section 3.2
        return "a request needs one Host header, and only one"
    if not _AUTHORITY.fullmatch(hosts[0]):
        return "the Host header is no host name with or without a port"
    return ""


def unpassable(status: int, reason: str, headers: AnyHeaders, *, upgrade: bool) -> str:
    """Return why an answer cannot be passed on as it was meant; empty where it can.

    aiohttp reads answers less strictly than requests; what another reader may take for something else ends here.
    """
    if status < 100 or (status == 101 and not upgrade):
        return f"its status {status} is no answer to what it was asked"
    codings = [coding.strip().lower() for coding in headers.getall("Transfer-Encoding", ())]
    if codings and codings != ["chunked"]:
        return "the only transfer coding that is known here is chunked"
    if not _NAME_CHARS.fullmatch("".join(headers)) or _CONTROL.search(reason + "".join(headers.values())):
        return "its headers hold characters that no header may hold"
    return ""


def request_id(headers: AnyHeaders, *, trusted: bool) -> str:
    """Return the id that a trusted peer gave, where it is sane, else a new one."""
    given = headers.get("X-Request-Id", "")
    if trusted and 0 < len(given) <= _MOST_ID_CHARS and all("!" <= char <= "~" for char in given):
        return given
    return f"{random.getrandbits(64):016x}"  # to tell requests apart: nothing is kept secret by it


def _listed_in_connection(headers: AnyHeaders) -> frozenset[str]:
    values = headers.getall("Connection", ())
    return frozenset(name.strip().lower() for value in values for name in value.split(",")) - _END_TO_END


def asks_for_upgrade(headers: AnyHeaders) -> bool:
    """Say whether another protocol is asked for on this connection (RFC 9110 section 7.8)."""
    return "Upgrade" in headers and "upgrade" in _listed_in_connection(headers)


def to_upstream(
    headers: AnyHeaders, *, host: str, peer: Peer, request_id: str, credentials: bool, upgrade: bool
) -> Headers:
    """Return the headers to ask the service with.

    `credentials` lets Authorization pass. Content-Length passes as a number; Transfer-Encoding belongs to each
    connection. `upgrade` asks for a WebSocket in our own name.
    """
    dropped = HOP_BY_HOP | _SET_HERE | _listed_in_connection(headers)
    if not peer.trusted:
        dropped |= _NEVER_FROM_STRANGERS
    if not credentials:
        dropped |= {"authorization"}
    passed: Headers = CIMultiDict()
    passed["Host"] = host
    if "Content-Length" in headers:
        passed["Content-Length"] = str(int(headers["Content-Length"]))
    for name, value in headers.items():
        # CGI and WSGI take an underscore for a hyphen: what is dropped under one name must not come by another.
        lower = name.lower().replace("_", "-")
        if lower not in dropped:
            passed.add(name, _encodable(value))
    came_through = ", ".join(headers.getall("X-Forwarded-For", ())) if peer.trusted else ""
    # A unix socket's peer has no address to add; nginx has written the client's already.
    hops = [hop for hop in (came_through, "" if peer.address == "unix" else peer.address) if hop]
    if hops:
        passed["X-Forwarded-For"] = ", ".join(hops)
    passed["X-Forwarded-Proto"] = peer.scheme
    passed["X-Forwarded-Host"] = (peer.trusted and headers.get("X-Forwarded-Host")) or host
    passed["X-Request-Id"] = request_id
    if upgrade:
        passed["Connection"] = "Upgrade"
        passed["Upgrade"] = "websocket"
    return passed


def to_client(
    headers: AnyHeaders, *, request_id: str, extra: Mapping[str, str], upgrade: bool = False
) -> Headers:
    """Return the headers to answer the client with; `extra` (CORS) replaces the service's own of its kind."""
    dropped = HOP_BY_HOP | {"x-request-id"} | _listed_in_connection(headers)
    passed: Headers = CIMultiDict()
    for name, value in headers.items():
        lower = name.lower()
        if lower in dropped or (extra and lower.startswith(_SINGLE_VALUED_ANSWER)):
            continue
        passed.add(name, _encodable(value))
    for name, value in extra.items():
        passed.add(name, value)
    passed["X-Request-Id"] = request_id
    passed.setdefault("Server", "autostart")
    if upgrade:
        passed["Connection"] = "Upgrade"
        passed["Upgrade"] = "websocket"
    return passed


def _encodable(value: str) -> str:
    """Return a value that can be sent: bytes that are no UTF-8 are read as what they were, Latin-1."""
    if value.isascii():
        return value
    return "".join(chr(ord(char) - 0xDC00) if "\udc80" <= char <= "\udcff" else char for char in value)


def wants_html(headers: AnyHeaders) -> bool:
    """Say whether HTML is preferred over JSON."""
    accept = headers.get("Accept", "").lower()
    html, json = accept.find("text/html"), accept.find("application/json")
    return html >= 0 and (json < 0 or html < json)


def is_navigation(method: str, headers: AnyHeaders) -> bool:
    """Say whether a person's browser asks for a page to show (Fetch Metadata; by Accept where there is none)."""
    if method not in {"GET", "HEAD"}:
        return False
    mode = headers.get("Sec-Fetch-Mode")
    if mode is not None:
        return mode == "navigate"
    return "Sec-Fetch-Dest" not in headers and "Sec-Fetch-Site" not in headers and wants_html(headers)


def is_quiet(method: str, path: str, headers: AnyHeaders, quiet: Quiet) -> bool:
    """Say whether a request never wakes a service; `path` without the query."""
    if method in quiet.methods or path == quiet.monitor_path or _wildcards(quiet.paths)(path):
        return True
    agent = headers.get("User-Agent", "")
    return _wildcards(quiet.user_agents, re.IGNORECASE)(agent) is not None


@lru_cache(maxsize=4096)
def _wildcards(patterns: tuple[str, ...], flags: int = 0) -> Callable[[str], re.Match[str] | None]:
    """Return what tells whether a string matches any of these shell wildcards."""
    return re.compile("|".join(map(translate, patterns)) or "(?!)", flags).match


def is_preflight(method: str, headers: AnyHeaders) -> bool:
    """Say whether this is a CORS preflight (Fetch standard, section 3.3.2)."""
    return method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def cors_headers(cors: Cors | None, headers: AnyHeaders, *, preflight: bool = False) -> dict[str, str]:
    """Return the CORS headers of an answer; empty where no CORS is configured.

    An origin that is not let in gets no permission, only `Vary`.
    """
    if cors is None:
        return {}
    answer = {"Vary": "Origin"}
    origin = headers.get("Origin")
    if origin is None or not ("*" in cors.origins or origin in cors.origins):
        return answer
    # With credentials a browser does not take "*" for an answer.
    answer["Access-Control-Allow-Origin"] = "*" if "*" in cors.origins and not cors.credentials else origin
    if cors.credentials:
        answer["Access-Control-Allow-Credentials"] = "true"
    if preflight:
        answer["Access-Control-Allow-Methods"] = ", ".join(cors.methods)
        answer["Access-Control-Allow-Headers"] = ", ".join(cors.headers)
        answer["Access-Control-Max-Age"] = f"{cors.max_age:.0f}"
    else:
        answer["Access-Control-Expose-Headers"] = "X-Request-Id, Retry-After"
    return answer
