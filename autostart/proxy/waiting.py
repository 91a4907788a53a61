"""The page that a person sees while a service starts, and what it follows the start by.

Owns the page's text, its headers and the reserved path. Imports lifecycle's snapshot only.
"""

import base64
import hashlib
import math
import re
import time
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template

from aiohttp import web

from autostart.lifecycle import Snapshot, State

STATE_PATH = "/.autostart/state"
"""Reserved on every host: tells a service's state to those who may use it, and never wakes it."""

_TEXT = files("autostart.proxy").joinpath("waiting.html").read_text("utf-8")
_PAGE = Template(_TEXT)


def remaining_s(snapshot: Snapshot) -> float:
    """Return the seconds until the service will be ready, by past starts; 1 at least."""
    elapsed_s = time.time() - snapshot.since_s if snapshot.state is State.STARTING else 0.0
    return max(1.0, snapshot.expected_start_s - elapsed_s)


def waiting_page(snapshot: Snapshot, request_id: str, extra: Mapping[str, str]) -> web.Response:
    """Return the waiting page: never a 2xx, never kept by a cache, and it works without JavaScript."""
    text = _PAGE.substitute(
        name=escape(snapshot.name),
        expected=max(1, math.ceil(snapshot.expected_start_s)),
        request_id=escape(request_id),
        state=snapshot.state.value,
    )
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    headers = {
        "Cache-Control": "no-store",
        "Retry-After": str(math.ceil(remaining_s(snapshot))),
        "X-Request-Id": request_id,
        "Server": "autostart",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; connect-src 'self'"
        ),
        **extra,
    }
    return web.Response(status=503, text=text, content_type="text/html", headers=headers)


def state_reply(snapshot: Snapshot, request_id: str, extra: Mapping[str, str]) -> web.Response:
    """Return what the page asks for: the state, and how far a start is."""
    elapsed_s = max(0.0, time.time() - snapshot.since_s)
    facts = {
        "service": snapshot.service,
        "name": snapshot.name,
        "state": snapshot.state.value,
        "elapsed_s": round(elapsed_s, 3),
        "expected_start_s": round(snapshot.expected_start_s, 3),
        "waiting_for": snapshot.waiting_for if snapshot.state is State.STARTING else "",
    }
    headers = {"Cache-Control": "no-store", "X-Request-Id": request_id, "Server": "autostart", **extra}
    return web.json_response(facts, headers=headers)
