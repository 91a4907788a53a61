"""`python -m bench [TABLE…]`: measure and print."""

import argparse
import importlib
import signal
import sys
from typing import NoReturn

from bench.stand import CORES, Failed, Missing
from bench.table import OVER, Row, skipped, write

GATEWAY = ("cold", "speech", "warm", "upload", "events", "waiting", "idle", "isolation")
WHISPER = ("listen", "pace", "accuracy", "clients", "hours")
"""Of services/faster-whisper alone; `make bench-speech`."""
WHISPERX = ("whisperx",)
"""Needs the environment of services/whisperx; `make bench-whisperx`."""
TABLES = (*GATEWAY, *WHISPER, *WHISPERX)


def measure(table: str) -> list[Row]:
    """Return the rows of a table; one row that says so where the machine lacks what it needs."""
    try:
        rows: list[Row] = importlib.import_module(f"bench.{table}").measure()
    except Missing as exc:
        return [skipped(table, str(exc))]
    except Failed as exc:
        return [Row(table, None, "", note=f"failed: {exc}")]
    return rows


def main() -> int:
    """Print each table as soon as it is there; a figure over its limit is marked, and is not an error."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "tables",
        nargs="*",
        metavar="TABLE",
        help=f"of {', '.join(TABLES)}; left out: {GATEWAY[0]} to {GATEWAY[-1]}",
    )
    wanted = parser.parse_args().tables or GATEWAY
    if unknown := sorted(set(wanted) - set(TABLES)):
        parser.error(f"there is no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    signal.signal(signal.SIGTERM, _leave)
    print(f"{len(CORES)} cores. Limits: see docs/benchmarks.md; {OVER} marks a figure over its limit.\n")
    over = unknown_figures = 0
    for table in wanted:
        print(f"measuring {table} …", file=sys.stderr, flush=True)
        rows = measure(table)
        over += sum(row.is_over for row in rows)
        unknown_figures += sum(row.measured is None for row in rows)
        print(write(importlib.import_module(f"bench.{table}").TITLE, rows), flush=True)
    print(f"{over} over the limit, {unknown_figures} not measured.")
    return 0


def _leave(*_: object) -> NoReturn:
    sys.exit(143)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
