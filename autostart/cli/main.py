"""Arguments, the way to the right command, and one place for what goes wrong on the way."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from autostart.admin.client import NotAllowed, NotRunning, Refused
from autostart.cli.where import BrokenConfig
from autostart.words import printable

OK, FAILED, USAGE, NOT_RUNNING = 0, 1, 2, 3

_COMMANDS = {
    "serve": "autostart.cli.serve:serve",
    "check": "autostart.cli.serve:check",
    "status": "autostart.cli.status:status",
    "explain": "autostart.cli.status:explain",
    "start": "autostart.cli.control:start",
    "stop": "autostart.cli.control:stop",
    "hold": "autostart.cli.control:hold",
    "release": "autostart.cli.control:release",
    "reload": "autostart.cli.control:reload",
    "render": "autostart.cli.render:render",
    "hash-key": "autostart.cli.hash_key:hash_key",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(given)
        sys.stdout.flush()
    except OSError as exc:
        if exc.errno not in (errno.EPIPE, errno.ENOSPC):  # `autostart status | head`, and a full disk
            raise
        # The interpreter flushes once more when it ends, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if exc.errno == errno.ENOSPC:
            print("autostart: the output could not be written: no space left", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130
    return code


def _run(given: list[str]) -> int:
    if given[:1] == ["demo"]:  # has options of its own
        try:
            demo = import_module("autostart.cli.demo")
        except ModuleNotFoundError as exc:  # a server has no need of what it is played with
            return _fail(FAILED, f"the demo is played in a checkout, with `make demo`; here is no {exc.name}")
        return int(demo.main(given[1:]))
    root = parser()
    args = root.parse_args(given)
    if args.version:
        print(import_module("autostart.version").version())
        return OK
    if args.command is None:
        root.print_help(sys.stderr)
        return USAGE
    module, _, function = _COMMANDS[args.command].partition(":")
    try:
        return int(getattr(import_module(module), function)(args))
    except BrokenConfig as exc:
        return _fail(USAGE, str(exc))
    except NotRunning as exc:
        return _fail(NOT_RUNNING, str(exc))
    except NotAllowed as exc:
        return _fail(FAILED, str(exc))
    except Refused as exc:
        code = USAGE if exc.code in {"unknown_service", "ambiguous_service", "config_invalid"} else FAILED
        return _fail(code, str(exc), exc.body)


def _fail(code: int, message: str, body: dict[str, object] | None = None) -> int:
    for line in message.splitlines():
        print(f"autostart: {printable(line)}", file=sys.stderr)
    body = body or {}
    if hint := body.get("hint"):
        print(f"autostart: what may help: {printable(str(hint))}", file=sys.stderr)
    log_tail = body.get("log_tail")
    for line in log_tail if isinstance(log_tail, list) else []:
        print(f"  | {printable(str(line))}", file=sys.stderr)
    return code


def _service(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port between 1 and 65535")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands but `demo`, which has its own."""
    root = argparse.ArgumentParser(
        prog="autostart",
        description="Put services to sleep while nobody uses them, and wake them on the first request.",
        epilog="SERVICE is a host name, an alias, or the beginning of one that fits no other. Exit codes: 0 done, "
        "1 it did not work, 2 broken configuration or usage, 3 autostart is not running.",
    )
    root.add_argument("--version", action="store_true", help="show the version")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="configuration (default: $AUTOSTART_CONFIG, else /etc/autostart/config.json, else ./config.json)",
    )
    asks = argparse.ArgumentParser(add_help=False, parents=[where])
    asks.add_argument(
        "--socket", metavar="PATH", help="admin socket (default: admin.socket of the configuration)"
    )
    commands = root.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, help_: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=help_, description=f"{help_[:1].upper()}{help_[1:]}.", parents=parents
        )

    command("serve", "run autostart", where)
    check = command("check", "explain every mistake in the configuration", where)
    check.add_argument("file", nargs="?", metavar="FILE", help="the same as --config FILE")
    status = command("status", "show the services and their states", asks)
    status.add_argument("service", nargs="?", metavar="SERVICE", type=_service)
    explain = command("explain", "say who woke a service, why it is up and when it will stop", asks)
    start = command("start", "start a service and wait until it is ready", asks)
    stop = command("stop", "stop a service", asks)
    stop.add_argument("--force", action="store_true", help="even while requests are open; they are cut")
    hold = command("hold", "keep a service awake", asks)
    hold.add_argument("--for", dest="duration", required=True, metavar="DURATION", help='"90s", "15m", "2h"')
    release = command("release", "end a hold", asks)
    for with_service in (explain, start, stop, hold, release):
        with_service.add_argument("service", metavar="SERVICE", type=_service)
    reload = command("reload", "apply the changed configuration", asks)
    for talks in (status, explain, start, stop, hold, release, reload):
        talks.add_argument("--json", action="store_true", help="print JSON for programs")
    render = command("render", "print a file for nginx, made from the configuration", where)
    render.add_argument("what", choices=["nginx"], help="the program that the file is for")
    render.add_argument(
        "--certificates",
        metavar="DIR",
        default="/etc/letsencrypt/live",
        help="holds HOST/fullchain.pem and HOST/privkey.pem of each service (default: %(default)s)",
    )
    for scheme, port in (("http", 80), ("https", 443)):
        render.add_argument(
            f"--{scheme}-port", type=_port, default=port, metavar="PORT", help="default: %(default)s"
        )
    hash_key = command("hash-key", "make a new API key, or hash the one on standard input (-)")
    hash_key.add_argument("source", nargs="*", metavar="-", help="read the key from standard input")
    commands.add_parser("demo", help="show the main job, end to end", add_help=False)
    return root
