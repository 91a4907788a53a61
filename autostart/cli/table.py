"""Columns for people, and colours where a person looks."""

import os
import re
import sys
from collections.abc import Iterable, Sequence

from autostart.words import printable

_COLOURS = {"ready": "32", "starting": "33", "stopping": "33", "failed": "31", "stopped": "2"}


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; a cell that is the name of a state gets its colour on a terminal."""
    lines = [tuple(head), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        print(_colour(text, line) if coloured and line is not lines[0] else text)


def _colour(text: str, cells: Sequence[str]) -> str:
    for cell in cells:
        if colour := _COLOURS.get(cell):
            return re.sub(rf"(?<=  ){cell}\b", f"\x1b[{colour}m{cell}\x1b[0m", text, count=1)
    return text
