"""Rows of figures, and how they are printed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OVER = "OVER"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside its limit; `measured` is None where the machine lacks something, and `note` says what."""

    figure: str
    measured: float | None
    unit: str
    limit: float | None = None
    note: str = ""

    @property
    def is_over(self) -> bool:
        """Say whether the figure is over its limit."""
        return self.measured is not None and self.limit is not None and self.measured > self.limit


def skipped(figure: str, missing: str) -> Row:
    """Return the row of something that cannot be measured here."""
    return Row(figure, None, "", note=f"skipped: {missing}")


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least `share` (0 to 1) of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Iterable[float]) -> float:
    """Return the middle value."""
    return percentile(values, 0.5)


def write(title: str, rows: Sequence[Row]) -> str:
    """Return a table as text that is also Markdown."""
    cells = [("figure", "measured", "limit", "note")]
    cells += [
        (
            row.figure,
            "-" if row.measured is None else f"{_digits(row.measured)} {row.unit}".strip(),
            ""
            if row.limit is None
            else f"{_digits(row.limit)} {row.unit}{' ' + OVER if row.is_over else ''}",
            row.note,
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([f"## {title}", "", *lines, ""])


def _digits(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"
