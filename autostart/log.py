"""The log: one line an event, `key=value`, for the journal or a terminal.

Owns how lines look, which priority they have and how talkative libraries may be. Lifecycle and requests are
told through `log_lifecycle` and `log_request`; every other line of ours goes through `logging.getLogger`.
No credential is ever logged: queries are cut off, and what looks like an Authorization header is blotted out.

Values come from clients and containers. What is not plain is quoted and its control characters escaped, so
that nobody writes a line of their own into the log, or commands into a terminal (CWE-117).
"""

import functools
import logging
import os
import re
import sys
import time
from typing import TextIO

from autostart.errors import InternalFailure, RuntimeFailure
from autostart.lifecycle import events
from autostart.proxy.events import RequestEvent, WebSocketOpened
from autostart.runtime.base import Change
from autostart.sink import Sink
from autostart.words import printable

_lifecycle = logging.getLogger("autostart.lifecycle")
_requests = logging.getLogger("autostart.request")

_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without space, quote, equals sign and backslash
_KEY_PREFIX = "autostart_"  # what `auth.generate_key` puts before every key
_CREDENTIAL = re.compile(r"(?i)\b(basic |bearer )[A-Za-z0-9._~+/=-]{4,}|(autostart_)[A-Za-z0-9_-]{40,}")
_SYSLOG = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
_QUIETED = {
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
    "aiohttp.access": logging.CRITICAL,  # `log_request` takes its place
    "docker": logging.WARNING,
    "urllib3": logging.WARNING,
}
"""Least level of libraries, whatever is configured: at debug level some of them print headers."""


def setup(level: str, stream: TextIO | None = None) -> None:
    """Send everything from `level` (`debug` … `error`) on to `stream`, stderr where left out.

    May be called again to change the level. Lines carry `<3>` … `<7>` when stderr is the journal, and the
    time and level in words when it is not.
    """
    stream = stream or sys.stderr
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler.formatter, _Lines)]
    if not any(isinstance(handler, Sink) and handler.stream is stream for handler in ours):
        for old in ours:
            root.removeHandler(old)
        handler = _make_handler(stream)
        handler.setFormatter(_JournalLines() if _is_journal(stream) else _TerminalLines())
        root.addHandler(handler)
    root.setLevel(level.upper())
    for name, least in _QUIETED.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    # Nobody prints these facts, and gathering them costs 2 of the 15 µs that a line takes
    # (docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None  # noqa: SLF001 - the documented way
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)


def _make_handler(stream: TextIO) -> logging.Handler:
    try:
        return Sink(stream)
    except (OSError, ValueError):  # no file, but something in memory
        return logging.StreamHandler(stream)


def _is_journal(stream: TextIO) -> bool:
    """Say whether `stream` is the very socket that systemd connected to the journal (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


# --- events --------------------------------------------------------------------------------------------


def log_lifecycle(event: events.Event) -> None:
    """Log one event of the lifecycle; transitions only at debug level, the end of each use not at all."""
    host = event.service
    failure = getattr(event, "failure", None)
    if isinstance(failure, InternalFailure):  # only the traceback tells where the mistake is
        _lifecycle.error("a mistake in autostart, service=%s", host, exc_info=failure)
    match event:
        case events.Used() | events.Held():  # who holds it is told where it is asked for
            return
        case events.Transition(old=old, new=new):
            _say(_lifecycle, logging.DEBUG, "state", host, old=old, new=new)
        case events.StartBegan(by=by, adopted=adopted):
            _say(_lifecycle, logging.INFO, "adopting" if adopted else "starting", host, by=by)
        case events.StartSucceeded(phases=phases):
            _say(
                _lifecycle,
                logging.INFO,
                "adopted" if event.adopted else "ready",
                host,
                by=event.by,
                total_s=phases.total_s,
                runtime_s=phases.runtime_s,
                ready_s=phases.ready_s,
                waiting=event.waiting,
            )
        case events.StartFailed(failure=failure):
            told = {"by": event.by, "waiting": event.waiting, "held_off_s": event.held_off_s}
            _say(_lifecycle, logging.ERROR, "start_failed", host, **_facts(failure), **told)
            for line in failure.log_tail:
                _say(_lifecycle, logging.ERROR, "start_failed_output", host, line=line)
        case events.StopBegan(reason=reason):
            _say(_lifecycle, logging.INFO, "stopping", host, reason=reason)
        case events.Stopped(reason=reason):
            expected = reason is not events.StopReason.CRASHED and not event.out_of_memory
            _say(
                _lifecycle,
                logging.INFO if expected else logging.ERROR,
                "stopped",
                host,
                reason=reason,
                ran_s=event.ran_s,
                open_requests=event.leases or None,
                exit_code=event.exit_code,
                out_of_memory=event.out_of_memory or None,
                held_off_s=event.held_off_s or None,
            )
        case events.StopFailed(failure=failure):
            _say(
                _lifecycle,
                logging.ERROR,
                "stop_failed",
                host,
                reason=event.reason,
                still_running="unknown" if event.still_running is None else event.still_running,
                **_facts(failure),
            )
        case events.RuntimeTrouble(operation=operation, failure=failure) if failure is not None:
            _say(_lifecycle, logging.WARNING, "runtime_error", host, operation=operation, **_facts(failure))
        case events.RuntimeTrouble(change=change):
            level = logging.WARNING if change is Change.UNHEALTHY else logging.INFO
            _say(_lifecycle, level, "health", host, change=change)


def log_request(event: RequestEvent) -> None:
    """Log a request that ended, or a WebSocket that was opened; a query is never logged, keys are passed in them."""
    if isinstance(event, WebSocketOpened):
        _say(_requests, logging.INFO, "websocket_opened", event.service, id=event.request_id)
        return
    # Asleep and starting are what the service is there for, however often a monitor looks.
    is_trouble = event.status >= 500 and event.code not in {"asleep", "starting"}
    level = logging.WARNING if is_trouble else logging.INFO
    _say(
        _requests,
        level,
        "websocket_closed" if event.websocket else "request",
        event.service or "-",
        method=event.method,
        path=event.path.partition("?")[0],
        status=event.status,
        code=event.code or None,
        duration_s=event.duration_s,
        waited_s=event.waited_s or None,
        bytes_in=event.bytes_in,
        bytes_out=event.bytes_out,
        client=event.client,
        user=event.identity,
        id=event.request_id,
    )


def log_action(action: str, service: str, by: str, **facts: object) -> None:
    """Log what a person did to a service through the local API."""
    _say(_lifecycle, logging.INFO, action, service, by=by, **facts)


def _say(logger: logging.Logger, level: int, event: str, service: str, **facts: object) -> None:
    """Log `event=… service=…` and the facts that are not None."""
    if logger.isEnabledFor(level):
        told = "".join([f" {key}={quote(value)}" for key, value in facts.items() if value is not None])
        logger.log(level, "event=%s service=%s%s", event, quote(service), told, extra=_LINE)


def _facts(failure: RuntimeFailure) -> dict[str, object]:
    return {"cause": failure.cause, "error": str(failure), "hint": failure.hint or None}


_LINE = {"is_line": True}
"""Marks a record whose message is a finished line."""


# --- lines ---------------------------------------------------------------------------------------------


def quote(value: object) -> str:
    """Return `value` as it stands after `key=`: as it is if it is plain, else in quotes and escaped.

    Credentials are blotted out here, where each value passes once (a pass over each line took 6 µs).
    """
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if _PLAIN.fullmatch(text) and _KEY_PREFIX not in text:
        return text
    escaped = _CREDENTIAL.sub(_blot, text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped)}"'


class _Lines(logging.Formatter):
    """A record as one line: finished lines as they are, the rest as `msg=…`."""

    def line(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if hasattr(record, "is_line"):
            return message
        named = "" if record.name.startswith("autostart") else f" logger={quote(record.name)}"
        return f"msg={quote(message)}{named}"

    def traceback(self, record: logging.LogRecord) -> str:
        if not record.exc_info:
            return ""
        return _CREDENTIAL.sub(_blot, self.formatException(record.exc_info))


class _JournalLines(_Lines):
    """`<6>event=…`: the journal adds the time itself, and takes the priority from the prefix (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _SYSLOG if record.levelno >= level), 7)
        traceback = self.traceback(record)
        return f"<{priority}>{self.line(record)}" + (f" traceback={quote(traceback)}" if traceback else "")


class _TerminalLines(_Lines):
    """`2026-01-31 12:00:00.123 info    event=…`, with tracebacks as people know them."""

    def format(self, record: logging.LogRecord) -> str:
        at = _written(int(record.created))
        traceback = "".join(f"\n{printable(line)}" for line in self.traceback(record).splitlines())
        head = f"{at}.{int(record.msecs):03d} {record.levelname.lower():<7} "
        return head + self.line(record) + traceback


@functools.lru_cache(maxsize=1)
def _written(second: int) -> str:
    """Return the local date and time of a second, which many lines may share."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


def _blot(match: re.Match[str]) -> str:
    return f"{match[1] or match[2]}…"
