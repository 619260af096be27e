"""Tables for a terminal: aligned plain text."""

from collections.abc import Collection, Sequence


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> str:
    """Rows below their headings and a rule, columns two spaces apart; a column without any text is left out.

    The last cell of a row with fewer cells than headings runs on over the columns to its right.

    Args:
        headings: One per column.
        rows: At most as many cells each.
        right: Headings of the columns that are aligned to the right.

    Returns:
        Lines without trailing spaces; empty without rows.
    """
    if not rows:
        return ""
    whole = [row for row in rows if len(row) == len(headings)]
    texts = [[row[column] for row in rows if column < len(row) - (row not in whole)] for column in range(len(headings))]
    widths = [max(map(len, [heading, *texts[column]])) for column, heading in enumerate(headings)]
    kept = [column for column in range(len(headings)) if any(row[column] for row in rows if column < len(row))]
    lines = [_line(headings, widths, kept, headings, right)]
    lines.append("  ".join("-" * widths[column] for column in kept))
    lines += [_line(row, widths, kept, headings, right) for row in rows]
    return "\n".join(lines)


def _line(
    cells: Sequence[str], widths: Sequence[int], kept: Sequence[int], headings: Sequence[str], right: Collection[str]
) -> str:
    placed = [
        cells[column].rjust(widths[column]) if headings[column] in right else cells[column].ljust(widths[column])
        for column in kept
        if column < len(cells)
    ]
    return "  ".join(placed).rstrip()
