"""The page about errors: what a caller may be told, what it means, and what to do about it.

`python -m autostart.proxy.reference` writes docs/errors.md; a test fails when it is stale. Statuses, codes, types
and headers come from `replies`; only the sentences are written here. Imports errors, replies and exchange.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from autostart import errors
from autostart.errors import FailureCause
from autostart.proxy.exchange import ANSWER_CUT, CLIENT_GONE
from autostart.proxy.replies import TABLE, Row

DOCS = Path(__file__).parents[2] / "docs"

Told = tuple[str, str]
"""What it means, and what to do."""

ERRORS: Mapping[type[errors.AutostartError], Told] = {
    errors.UnknownHost: (
        "No service has this host name.",
        "Check the URL and, behind another proxy, that it passes `Host` on. New in the file: `autostart reload`.",
    ),
    errors.Unauthorized: (
        "No credentials, or wrong ones. Nothing was woken.",
        "Send Basic credentials of the htpasswd file, or an API key as `Authorization: Bearer …`.",
    ),
    errors.Forbidden: (
        "The credentials are valid, but `auth.allow` of this service leaves them out.",
        "Ask for access, or add the name to `allow`.",
    ),
    errors.BodyTooLarge: (
        "The body is over `maxBodySize`: `limit_bytes`, `declared_bytes`. Nothing was woken if its length was declared.",
        "Send less (compressed audio), or raise `maxBodySize`.",
    ),
    errors.BadRequest: (
        "The request cannot be forwarded as it is; the message says why.",
        "Correct the client: one `Host`, one `Authorization`, no other expectation than `100-continue`.",
    ),
    errors.HeadersTooLarge: (
        "The request line and headers are over `limit_bytes` together, one is over 32 KiB, or they are over 128.",
        "Send fewer or smaller cookies; put what is large into the body.",
    ),
    errors.HeaderTimeout: (
        "The request line and headers were not complete within `headerTimeout` (`limit_s`).",
        "Look at the network; raise `headerTimeout` for clients that are so slow.",
    ),
    errors.BodyTimeout: (
        "The client sent nothing more of its body for `bodyTimeout` (`limit_s`). What the service began is cancelled.",
        "Send again; raise `bodyTimeout` for clients that pause, such as live recordings.",
    ),
    errors.StartFailed: (
        "The start that this request waited for failed. `cause`, `hint`, `exit_code`, `log_tail` tell why.",
        "See the causes below. Do not just repeat: the next starts are held off.",
    ),
    errors.StartHeldOff: (
        "The last start failed, or crashed within 60 s of being ready; the next is held off: 5 s, doubling up to 5 min.",
        "Repair the cause; then `autostart start SERVICE`, or a request after `Retry-After`.",
    ),
    errors.StartTimeout: (
        "The service was not ready within `waitTimeout` (`waited_s`). The start itself goes on.",
        "Ask again after `Retry-After`. If it is always so slow, raise `waitTimeout` and `startTimeout`.",
    ),
    errors.Starting: (
        "The service is being started, and this request does not wait (`blocking`).",
        "Ask again after `Retry-After`, which is what is left of a start as long as the last one.",
    ),
    errors.Asleep: (
        "The service sleeps, and this kind of request (`quiet`: probes, favicons, `OPTIONS`) does not wake it.",
        "Nothing; or take the path, method or user agent out of `quiet`.",
    ),
    errors.ShuttingDown: (
        "autostart is stopping: open requests have `drainTimeout` to be answered, new ones are refused.",
        "Ask again after `Retry-After`.",
    ),
    errors.InUse: (
        "Local API only: a stop was asked for, but requests are open (`leases`).",
        "Wait, or `autostart stop --force`, which cuts them.",
    ),
    errors.UpstreamFailed: (
        "The service refused or broke the connection before it answered. What could be repeated safely was.",
        "See the service's own log. A service that crashed is started by the next request; one that did so within a minute is held off.",
    ),
    errors.UpstreamTimeout: (
        "The service took the request, and was silent beyond `responseTimeout` (`waited_s`).",
        "See the service's own log; raise `responseTimeout` for long work.",
    ),
    errors.RuntimeFailure: (
        "A start or stop that somebody asked for by hand failed. Local API; the status is 502 there.",
        "See the causes below.",
    ),
    errors.ConfigError: (
        "The configuration is broken, and the old one stays. Local API; the status is 422 there.",
        "`autostart check` names every mistake.",
    ),
    errors.AutostartError: (
        "A mistake in autostart itself.",
        "Report it, with the lines of the log that have the request's id.",
    ),
}

CAUSES: Mapping[FailureCause, Told] = {
    FailureCause.COMPOSE_DIR_MISSING: (
        "`composeDir` is not there, or holds no compose file.",
        "Correct `composeDir`.",
    ),
    FailureCause.COMPOSE_FILE_INVALID: (
        "The compose file does not parse, or compose refuses it.",
        "Run `docker compose config` there.",
    ),
    FailureCause.CONTAINER_UNKNOWN: (
        "A name in `containers` is not in the compose file.",
        "Correct `containers`, or `container_name` in the compose file.",
    ),
    FailureCause.IMAGE_MISSING: (
        "The image is neither on this machine nor to be had.",
        "`docker compose pull` or `docker compose build`; then `docker compose up --no-start` shows that it works.",
    ),
    FailureCause.PORT_TAKEN: (
        "Something else listens on the port that the service needs.",
        "`ss -ltnp sport = :PORT` shows what.",
    ),
    FailureCause.ENGINE_UNREACHABLE: (
        "No Docker engine answers.",
        "`systemctl status docker`; see `DOCKER_HOST`.",
    ),
    FailureCause.ENGINE_FORBIDDEN: (
        "The Docker socket may not be opened by autostart's user.",
        "Add the user to the group that owns the socket (usually `docker`), and restart autostart.",
    ),
    FailureCause.COMMAND_NOT_FOUND: (
        "The program is not there, or not executable.",
        "Correct `runtime.command` or `runtime.cwd`; for compose, install `docker compose`.",
    ),
    FailureCause.COMMAND_FAILED: (
        "The compose command failed, and says nothing that is known here by name.",
        "Read its output in `log_tail`.",
    ),
    FailureCause.EXITED: (
        "What was started ended before it was ready; `exit_code` is negative for a signal.",
        "Read `log_tail`, then the service's own log.",
    ),
    FailureCause.OUT_OF_MEMORY: (
        "The kernel killed it: its memory limit, or the machine's memory, was used up.",
        "Raise the limit, or take a smaller model.",
    ),
    FailureCause.UNHEALTHY: (
        "The container's own health check says no.",
        "Read what it printed, in the message.",
    ),
    FailureCause.TIMEOUT: (
        "It was not ready within `startTimeout`, or another operation outlasted its limit; the message says which.",
        "If it is only slow (a first start that downloads a model), raise the option that the hint names.",
    ),
    FailureCause.STOPPED_BY_HAND: ("Somebody stopped the service while it was starting.", "Ask again."),
    FailureCause.BUSY_UNKNOWN: (
        "It cannot be told whether the service is busy, so it is not stopped for being idle. In the log only.",
        "Correct `busyPath` or its answer; without the engine's statistics, leave out `busyCpuPercent`.",
    ),
    FailureCause.STOP_FAILED: (
        "A stop did not end what was to be stopped.",
        "`autostart explain SERVICE`; look at the container or process.",
    ),
    FailureCause.INTERNAL: ("A mistake in autostart itself.", "Report it, with the log."),
}

UNANSWERED: Mapping[str, str] = {
    CLIENT_GONE: "The client left before its answer was complete. Status 499 where none had been sent.",
    ANSWER_CUT: "The service broke off in the middle of its answer; the client sees its connection break too.",
}
"""Codes that nobody is told, for there is nobody left or an answer has begun: in the log and the metrics."""

_PAGE = """\
<!-- Made by `python -m autostart.proxy.reference`; changes belong there. -->

# Errors

What autostart itself answers when it cannot pass a request on. What a service answers, its errors included, is
passed on as it is.

```json
{{
  "error": {{"message": "the service is starting", "type": "server_error", "param": null, "code": "starting"}},
  "service": "whisper.example.org", "state": "starting", "retry_after_s": 10, "request_id": "66d5c5c63eb9f840"
}}
```

- `error` is what OpenAI's clients read. Decide by `code`; `message` is for people and may change.
- `service` and `state` are null where no service was found. Facts of the error stand beside them.
- A browser that navigates gets the same as a page. Every answer carries `X-Request-Id`, which is in the log.
- *again*: `Retry-After` says when it is worth asking again. *not again*: `x-should-retry: false` keeps the OpenAI
  SDK from uploading the file twice more.
- What is told of a failed start depends on `failureDetails`: nothing (`none`); `cause`, `hint` and `exit_code`
  (`cause`); or `log_tail` too (`log`).

{errors}
## Why a start failed

`cause` in a reply, in the log, in `autostart explain`, and as a label of `autostart_start_failures_total`.

{causes}
## In the log and the metrics only

{unanswered}
Codes of the local API alone are with [the commands](commands.md).
"""


def reference() -> str:
    """Return docs/errors.md."""
    return _PAGE.format(
        errors=_table(
            ("status", "code", "type", "", "meaning", "what to do"),
            (_row(cls, row) for cls, row in TABLE.items()),
        ),
        causes=_table(
            ("cause", "meaning", "what to do"), ((f"`{cause}`", *told) for cause, told in CAUSES.items())
        ),
        unanswered=_table(("code", "meaning"), ((f"`{code}`", told) for code, told in UNANSWERED.items())),
    )


def _row(cls: type[errors.AutostartError], row: Row) -> tuple[str, ...]:
    meaning, advice = ERRORS[cls]
    return str(row.status), f"`{row.code}`", f"`{row.kind}`", _repetition(cls, row), meaning, advice


def _repetition(cls: type[errors.AutostartError], row: Row) -> str:
    if not row.repeat:
        return "not again"
    tells_when = "retry_after_s" in inspect.get_annotations(cls.__init__)
    return "again" if tells_when or getattr(cls, "retry_after_s", None) is not None else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))
    return "".join(lines)


def main() -> None:
    """Write the page."""
    (DOCS / "errors.md").write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
