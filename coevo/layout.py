"""Text tables: cells in, aligned lines out."""

from __future__ import annotations

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Rows of equally many cells as lines of aligned columns; an empty row is an empty line.

    Args:
        rows: of cells.
        names: so many first columns are text and stand to the left; the others are figures and stand to the right.
    """
    widths = [max(len(row[place]) for row in rows if row) for place in range(max(map(len, rows)))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < names else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    )
