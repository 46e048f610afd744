"""Plain text tables for the screen."""

from collections.abc import Sequence


def format_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of aligned columns under `heads`: the first column to the left, all others (numbers) to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
