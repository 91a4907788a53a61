"""`autostart serve` and `autostart check`: the commands that read the whole configuration themselves."""

import argparse
import asyncio
import logging

from autostart.cli.where import config_path
from autostart.words import counted, printable


def serve(args: argparse.Namespace) -> int:
    """Run autostart until it is told to stop."""
    from autostart.program import serve as run  # noqa: PLC0415 - `check` does not need the program

    return run(config_path(args.config))


def check(args: argparse.Namespace) -> int:
    """Print what is wrong with the configuration, and with the machine for it."""
    from autostart.check import check as look  # noqa: PLC0415 - `serve` does not need it

    # What libraries of ours log is in the report already.
    logging.getLogger("autostart").addHandler(logging.NullHandler())
    path = config_path(args.file or args.config)
    report = asyncio.run(look(path))
    for line in report.lines():
        print(printable(line))
    if not report.errors:
        print(
            f"{path}: ok" + (f", with {counted(len(report.warnings), 'warning')}" if report.warnings else "")
        )
    return report.exit_code
