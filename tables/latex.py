r"""The tables in LaTeX with booktabs, for a paper.

Every value stands in a macro that says what it is (`\pbSample`, `\pbBest`, ...), so that a paper can print it in its own way;
`macros.tex` defines them. `tables.tex` is a document with all tables.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from eval.tasks import BENCHMARKS
from tables.render import plain, rounded
from tables.rows import Cell, Row, Table, printed, signed, standing_word

DOCUMENT = "tables.tex"
MACROS_FILE = "macros.tex"

_FEATURES = ("knn_features", "linear_features")
_NOT_RUN = "--"

# The fonts of the smallest TeX installation have all of these.
_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "{}&#%_"}
    | {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "$": r"\ensuremath{\mathdollar}", "±": r"\ensuremath{\pm}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "`": ""}
)

MACROS = (Path(__file__).parent / MACROS_FILE).read_text(encoding="utf-8")

_LEGEND = (
    r"\textsuperscript{m}: measured here; the other upright figures are as published. \textit{[In brackets]}: measured here, not a "
    r"benchmark number. Bold and underlined: best and second of the benchmark numbers of a column. In parentheses: difference from "
    r"the baseline; *: significant by a paired test over the test items (5\,\%)."
)


def render_document(names: Sequence[str]) -> str:
    """A document with all tables, to be compiled in their folder; `names` are their file names without suffix."""
    preamble = [
        r"\documentclass{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        r"\usepackage[landscape,margin=1cm]{geometry}",
        r"\input{macros}",
    ]
    body = [rf"\input{{{name}}}" for name in names]
    return "\n".join([*preamble, r"\begin{document}", *body, r"\end{document}"]) + "\n"


def render_latex(table: Table) -> str:
    """A table as a float, at most as wide as the page."""
    descriptors = [name for name in table.layout.descriptors if any(row.descriptors[name] for row in table.rows)]
    # How an image is represented takes too many words for a column: each way gets a number, which the caption explains.
    texts = dict.fromkeys(row.descriptors.get(name, "") for row in table.rows for name in _FEATURES)
    features = {text: f"({number})" for number, text in enumerate(filter(None, texts), start=1)}
    legend = "; ".join(f"{number} {escape(text)}" for text, number in features.items())
    caption = [escape(f"{table.layout.title}."), escape(table.layout.caption), _LEGEND]
    caption += [escape(f"{row.descriptors['method']}: {row.note}.") for row in table.rows if row.evaluated and row.note]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{' '.join([*caption, *([f'Features: {legend}.'] if legend else [])])}}}",
        rf"\label{{tab:{table.layout.name.replace('_', '-')}}}",
        r"\smallskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{'l' * len(descriptors)}{'r' * len(table.layout.columns)}}}",
        r"\toprule",
        *_headings(table, descriptors),
        r"\midrule",
    ]
    previous: Row | None = None
    for row in table.rows:
        if previous and (row.evaluated is None) != (previous.evaluated is None):
            lines.append(r"\midrule")
        words = [_descriptor(row, name, features) for name in descriptors]
        lines.append(_line([*words, *(_value(row.cells.get(column.key)) for column in table.layout.columns)]))
        previous = row
    lines += [r"\bottomrule", r"\end{tabular}%", "}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text in LaTeX, on one line and without Markdown's backticks. Letters beyond Latin-1 are left to the engine."""
    return plain(text).translate(_ESCAPES)


def _headings(table: Table, descriptors: Sequence[str]) -> list[str]:
    """Two lines: the benchmarks above their columns, with rules below, and the columns."""
    benchmarks, rules = [""] * len(descriptors), []
    place = len(descriptors)
    for title, columns in groupby(BENCHMARKS[column.benchmark].title for column in table.layout.columns):
        width = len(list(columns))
        benchmarks.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(title)}}}")
        rules.append(rf"\cmidrule(lr){{{place + 1}-{place + width}}}")
        place += width
    names = [*(name.replace("_", " ") for name in descriptors), *(column.heading for column in table.layout.columns)]
    return [_line(benchmarks), *rules, _line([escape(name) for name in names])]


def _line(cells: Sequence[str]) -> str:
    # A [ or * after the end of the row before would be taken for an argument of that.
    return ("{}" if cells[0].startswith(("[", "*")) else "") + " & ".join(cells) + r" \\"


def _descriptor(row: Row, name: str, features: Mapping[str, str]) -> str:
    text = row.descriptors[name]
    return features[text] if name in _FEATURES and text else escape(text) or _NOT_RUN


def _value(cell: Cell | None) -> str:
    if cell is None:
        return _NOT_RUN
    text = escape(rounded(cell))
    if cell.spread is not None:
        text = rf"\pbSpread{{{text}}}{{{printed(cell.spread, cell.column)}}}{{{len(cell.measurements)}}}"
    if cell.rank is not None:
        text = rf"\pb{cell.rank.capitalize()}{{{text}}}"
    text = rf"\pb{standing_word(cell).capitalize()}{{{text}}}"
    if cell.incomparable:
        text = rf"\pbIncomparable{{{text}}}"
    if cell.interval_95 is not None:
        text = rf"\pbInterval{{{text}}}{{{printed(cell.interval_95[0], cell.column)}}}{{{printed(cell.interval_95[1], cell.column)}}}"
    if cell.delta is not None:
        delta = signed(cell.delta, cell.column).replace("-", r"\ensuremath{-}")
        text += rf"\pb{'Significant' if cell.star else ''}Delta{{{delta}}}"
    return text
