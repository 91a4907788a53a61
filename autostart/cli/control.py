"""`autostart start`, `stop`, `hold`, `release` and `reload`: what people ask of a running autostart."""

import argparse
import json
import sys
from typing import Any

from autostart.admin.client import ANSWER_LIMIT_S, WORK_LIMIT_S, ask, service_path
from autostart.cli.where import admin_socket
from autostart.words import age, counted

_LONGEST_HOLD_S = 366 * 86400
"""What the local API takes; a test holds the two together."""


def start(args: argparse.Namespace) -> int:
    """Start a service and wait until it is ready."""
    answer = _post(args, "start", limit_s=WORK_LIMIT_S)
    if answer["was_ready"]:
        return _done(args, answer, f"{answer['service']} was {answer['state']} already")
    took = f", after {answer['last_start']['total_s']:.2f} s" if answer["last_start"] else ""
    return _done(args, answer, f"{answer['service']} is {answer['state']}{took}")


def stop(args: argparse.Namespace) -> int:
    """Stop a service and wait until it has stopped."""
    answer = _post(args, "stop", {"force": args.force}, WORK_LIMIT_S)
    return _done(args, answer, f"{answer['service']} is {answer['state']}")


def hold(args: argparse.Namespace) -> int:
    """Keep a service from idle stops for a while."""
    from autostart.config.units import parse_duration  # noqa: PLC0415 - loads the models: 0.2 s

    try:
        for_s = parse_duration(args.duration)
    except ValueError as exc:
        print(f'autostart: --for: {exc} (accepted: "90s", "15m", "2h")', file=sys.stderr)
        return 2
    if not 0 < for_s <= _LONGEST_HOLD_S:
        told = "ends a hold: `autostart release`" if not for_s else "is more than a year"
        print(f"autostart: --for: {args.duration} {told}", file=sys.stderr)
        return 2
    answer = _post(args, "hold", {"for_s": for_s})
    awake = "" if answer["state"] == "ready" else f"; it is {answer['state']} now, a hold does not start it"
    return _done(args, answer, f"{answer['service']} is held awake for {age(answer['held_for_s'])}{awake}")


def release(args: argparse.Namespace) -> int:
    """End a hold."""
    answer = _post(args, "hold", {"for_s": 0})
    return _done(args, answer, f"{answer['service']} is not held any more")


def reload(args: argparse.Namespace) -> int:
    """Apply the configuration file by difference."""
    answer = ask(admin_socket(args.config, args.socket), "POST", "/v1/reload", limit_s=WORK_LIMIT_S)
    return _done(args, answer, f"the configuration was reloaded: {counted(answer['services'], 'service')}")


def _post(
    args: argparse.Namespace, action: str, body: dict[str, Any] | None = None, limit_s: float = ANSWER_LIMIT_S
) -> dict[str, Any]:
    path = service_path(args.service, action)
    return ask(admin_socket(args.config, args.socket), "POST", path, body or {}, limit_s)


def _done(args: argparse.Namespace, answer: dict[str, Any], sentence: str) -> int:
    print(json.dumps(answer, indent=2) if args.json else sentence)
    return 0
